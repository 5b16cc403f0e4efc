package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

func catalogue(t *testing.T, language string) words {
	t.Helper()
	w, err := readWords(language)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestCataloguesHaveTheSameKeys(t *testing.T) {
	english := catalogue(t, languages[0])
	verbs := regexp.MustCompile(`%[^ ]*?[a-z]`)
	for _, language := range languages[1:] {
		other := catalogue(t, language)
		for key, text := range english {
			translated, ok := other[key]
			if !ok || translated == "" {
				t.Errorf("%s: no %s", language, key)
			}
			if a, b := verbs.FindAllString(text, -1), verbs.FindAllString(translated, -1); strings.Join(a, " ") != strings.Join(b, " ") {
				t.Errorf("%s: %s takes %v, in English %v", language, key, b, a)
			}
		}
		for key := range other {
			if _, ok := english[key]; !ok {
				t.Errorf("%s: %s is not in English", language, key)
			}
		}
	}
}

func TestUsedKeysExistAndAllAreUsed(t *testing.T) {
	english := catalogue(t, languages[0])
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`(?:say\(|count\([^"\n]*)"([^"]+)"([,)])`)
	made := regexp.MustCompile(`(?:command|group|node)\("([^"]+)"`)
	prefixes := []string{"dev.kill.", "dev.stop.", "dev.cont.", "dev.start.", "dev.cut.", "dev.join.", "dev.done.", "dev.wait.", "role.", "replication."} // made of parts
	used := map[string]bool{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
		}
		for _, m := range made.FindAllStringSubmatch(string(text), -1) {
			if !strings.HasSuffix(m[1], ".") {
				used[m[1]+".short"] = true
			}
		}
	}
	for key := range used {
		if _, ok := english[key]; !ok {
			t.Errorf("%s is used and not in the catalogue", key)
		}
	}
unused:
	for key := range english {
		for _, prefix := range prefixes {
			if strings.HasPrefix(key, prefix) {
				continue unused
			}
		}
		if !used[key] {
			t.Errorf("%s is in the catalogue and nobody says it", key)
		}
	}
}

func TestLanguageIsChosen(t *testing.T) {
	for _, row := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{nil, nil, "yes"},
		{nil, map[string]string{"LANG": "nl_BE.UTF-8"}, "ja"},
		{nil, map[string]string{"LANG": "nl_NL.UTF-8", "LC_ALL": "C"}, "yes"},
		{[]string{"hub", "list", "--lang", "nl"}, nil, "ja"},
		{[]string{"--lang=en"}, map[string]string{"LANG": "nl_NL"}, "yes"},
	} {
		if got := chooseWords(row.args, func(k string) string { return row.env[k] })["yes"]; got != row.want {
			t.Errorf("%v %v: %q", row.args, row.env, got)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, language := range languages {
		a := &app{words: catalogue(t, language), out: io.Discard, err: io.Discard}
		for _, c := range every(a.root()) {
			if c.Example == "" || c.Short == "" {
				t.Errorf("%s: no example or no text", c.CommandPath())
			}
		}
	}
}
