package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// goRun finds the places in which `go run` puts what it builds: a directory for one run, or its cache.
var goRun = regexp.MustCompile(`/go-build[0-9]+/b[0-9]+/exe/|/[0-9a-f]{64}-d/`)

// started is how this program was started, so that a command that begins with it works when it is pasted in the same
// directory.
func started(arg0 string, exists func(string) bool) string {
	switch {
	case !goRun.MatchString(filepath.ToSlash(arg0)):
		return quote(arg0)
	case exists("cmd/tandem/main.go"):
		return "go run ./cmd/tandem"
	}
	return quote(arg0) // go run of another directory; what it built is there for as long as it runs
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// here is a command of ours, "tandem hub list", as it has to be typed here: started as this one was, and with the flags
// that named the installation.
func (a *app) here(command string) string {
	command = started(os.Args[0], exists) + strings.TrimPrefix(command, "tandem")
	if a.envFile != defaultEnvFile {
		command += " --env " + quote(a.envFile)
	}
	if a.url != "" {
		command += " --url " + quote(a.url)
	}
	if a.ca != "" {
		command += " --ca " + quote(a.ca)
	}
	return command
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)

// quote is a word as a shell reads it back.
func quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
