package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed text/*.json
var catalogues embed.FS

// words is a catalogue of texts for people. Keys, ids and logs stay English in every language.
type words map[string]string

// languages are those with a catalogue; the first is the one that has everything.
var languages = []string{"en", "nl"}

func readWords(language string) (words, error) {
	text, err := catalogues.ReadFile("text/" + language + ".json")
	if err != nil {
		return nil, err
	}
	var w words
	return w, json.Unmarshal(text, &w)
}

// chooseWords takes the language of --lang, else of LC_ALL, LC_MESSAGES or LANG, else English. It runs before the command
// line is read, because help texts need it.
func chooseWords(args []string, getenv func(string) string) words {
	wanted := ""
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--lang="); ok {
			wanted = value
		} else if arg == "--lang" && i+1 < len(args) {
			wanted = args[i+1]
		}
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if wanted == "" {
			wanted = getenv(name)
		}
	}
	chosen := languages[0]
	for _, language := range languages {
		if strings.HasPrefix(strings.ToLower(wanted), language) {
			chosen = language
		}
	}
	w, err := readWords(chosen)
	if err != nil {
		panic("an embedded catalogue cannot be read: " + err.Error())
	}
	return w
}

// say is the text of key with its arguments put in.
func (a *app) say(key string, args ...any) string {
	text, ok := a.words[key]
	if !ok {
		return key
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}
