package tandem_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// storeys is the picture that CONTRIBUTING.md draws: a package may import what stands on a line below its own, never its
// own line or above. Rooms inside a package (gateway/mqtt, pairlog/natslog) stand on their parent's line and may import
// the parent.
var storeys = [][]string{
	{"cmd/tandem"},
	{"dev"},
	{"client", "region"},
	{"gateway/mqtt", "gateway/amqp", "gateway/https", "gateway/kafka", "arm", "portal"},
	{"gateway"},
	{"recovery", "concierge", "routing"},
	{"failover"},
	{"catalog"},
	{"hub"},
	{"operation", "pairlog/natslog", "pairlog/replicated", "recovery/virt"},
	{"pairlog"},
	{"directory"},
	{""},
}

// free stands outside the picture: it drives the whole, or is a suite for tests.
var free = []string{"sim", "sim/model", "compat", "bench", "pairlog/logtest", "directory/directorytest"}

// bare packages know nothing of Tandem at all.
var bare = []string{"gateway/mqtt/packet", "gateway/amqp/frame"}

// soleImporters are the packages that hide something big.
var soleImporters = map[string][]string{
	"go.etcd.io/":                   {"directory"},
	"github.com/nats-io/":           {"pairlog/natslog"},
	"github.com/digitalocean/":      {"recovery/virt"},
	"github.com/spf13/cobra":        {"cmd/tandem"},
	"github.com/cockroachdb/pebble": {"hub", "catalog"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range goList(t) {
		name := short(p.ImportPath)
		if slices.Contains(free, name) {
			continue
		}
		from := storeyOf(name)
		if from < 0 && !slices.Contains(bare, name) {
			t.Errorf("package %s has no place in the picture: put it on a line of storeys, or into one that exists", name)
			continue
		}
		for _, imported := range p.Imports {
			for prefix, allowed := range soleImporters {
				if strings.HasPrefix(imported, prefix) && !slices.ContainsFunc(allowed, func(a string) bool { return within(name, a) }) {
					t.Errorf("%s imports %s, which only %v may", name, imported, allowed)
				}
			}
			if imported != "tandem" && !strings.HasPrefix(imported, "tandem/") {
				continue
			}
			to := short(imported)
			switch {
			case slices.Contains(bare, name):
				t.Errorf("%s imports %s; it should know nothing of Tandem", name, to)
			case slices.Contains(free, to):
				t.Errorf("%s imports %s, which is for tests", name, to)
			case slices.Contains(bare, to):
			case storeyOf(to) <= from && !within(name, to):
				t.Errorf("%s imports %s, which is not below it", name, to)
			}
		}
	}
}

// within reports whether name is package p or a room in it.
func within(name, p string) bool { return name == p || strings.HasPrefix(name, p+"/") && p != "" }

func short(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, "tandem"), "/")
}

// storeyOf is the line of a package, or of the nearest package around it; 0 is the top, -1 means none.
func storeyOf(name string) int {
	for {
		for i, rooms := range storeys {
			if slices.Contains(rooms, name) {
				return i
			}
		}
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			return -1
		}
		name = name[:cut]
	}
}

func goList(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
