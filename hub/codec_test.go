package hub_test

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"tandem"
	"tandem/hub"
	"tandem/pairlog"
)

func changes() map[string]hub.DeviceChange {
	return map[string]hub.DeviceChange{
		"plain": {Op: hub.OpDeviceCreate, ID: "d", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS}},
		"keys": {Op: hub.OpDevicePut, ID: "device-1", IfMatch: "AAAA", Status: hub.Enabled,
			Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte{0, 1, 2}, SecondaryKey: []byte{255}}},
		"full": {Op: hub.OpDeviceUpdate, ID: "A-:.+%_#*?!(),=@;$'z", IfMatch: "*", Status: hub.Disabled, StatusReason: "gestohlen – é",
			Auth:        hub.Auth{Type: hub.AuthSelfSigned, PrimaryThumbprint: "AB12", SecondaryThumbprint: "CD34"},
			EdgeCapable: true, DeviceScope: "ms-azure-iot-edge://e-1", ParentScopes: []string{"ms-azure-iot-edge://p-2", ""}},
		"authority": {Op: hub.OpDeviceDelete, ID: "x", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthCA}},
	}
}

func TestDeviceChangeRoundTrip(t *testing.T) {
	var all []hub.DeviceChange
	for name, c := range changes() {
		got, err := hub.DecodeDeviceChange(hub.AppendDeviceChange(nil, &c))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: got %+v (%v)\nwant %+v", name, got, err, c)
		}
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all = append(all, c)
	}
	got, err := hub.DecodeBulk(hub.AppendBulk(nil, all))
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, all)
	}
}

func TestDeviceChangeCheck(t *testing.T) {
	good := func() hub.DeviceChange { return hub.DeviceChange{ID: "d", Auth: hub.Auth{Type: hub.AuthSAS}} }
	for name, edit := range map[string]func(*hub.DeviceChange){
		"no id":                 func(c *hub.DeviceChange) { c.ID = "" },
		"a space in the id":     func(c *hub.DeviceChange) { c.ID = "a b" },
		"a slash in the id":     func(c *hub.DeviceChange) { c.ID = "a/b" },
		"a letter beyond ASCII": func(c *hub.DeviceChange) { c.ID = "é" },
		"a long id":             func(c *hub.DeviceChange) { c.ID = strings.Repeat("x", 129) },
		"a long reason":         func(c *hub.DeviceChange) { c.StatusReason = strings.Repeat("é", 129) },
		"a status":              func(c *hub.DeviceChange) { c.Status = "on" },
		"a type":                func(c *hub.DeviceChange) { c.Auth.Type = "password" },
		"a huge key":            func(c *hub.DeviceChange) { c.Auth.PrimaryKey = make([]byte, 5000) },
	} {
		c := good()
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		edit(&c)
		if err := c.Check(); tandem.KindOf(err) != tandem.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := good()
	c.ID, c.StatusReason = strings.Repeat("x", 128), strings.Repeat("é", 128)
	if err := c.Check(); err != nil {
		t.Errorf("at the limits: %v", err)
	}
	if _, err := hub.DecodeBulk(hub.AppendBulk(nil, make([]hub.DeviceChange, 101))); tandem.KindOf(err) != tandem.TooLarge {
		t.Errorf("101 changes: %v", err)
	}
}

// What is on disk has to stay readable: these bytes never change.
func TestViewEncodingsAreGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/view-v1.txt")
	if err != nil && !*rewrite {
		t.Fatal(err)
	}
	got := goldenEncodings(t)
	if *rewrite {
		if err := os.WriteFile("testdata/view-v1.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(golden) {
		t.Errorf("got\n%s\nwant\n%s", got, golden)
	}
}

func goldenEncodings(t *testing.T) string {
	var b strings.Builder
	line := func(name string, data []byte) { b.WriteString(name + " = " + hex.EncodeToString(data) + "\n") }
	for _, name := range []string{"plain", "keys", "full", "authority"} {
		c := changes()[name]
		line("change "+name, hub.AppendDeviceChange(nil, &c))
	}
	line("door", hub.AppendDoorEntry(nil, "01J", 300, 20, 290, []hub.Refusal{{Number: 301, Kind: tandem.NotFound}, {Number: 319, Kind: tandem.Exists}}))
	v, c := openView(t, t.TempDir()), newChain(t)
	c.at.Epoch = 7
	rec, outcomes := decide(t, v, c, change(hub.OpDeviceCreate, "a"), change(hub.OpDeviceUpdate, "a", disabled), change(hub.OpDeviceCreate, "b"),
		said("b", "hi"), hub.Command{Op: hub.OpDeviceDelete, Device: "b"})
	for i, e := range rec.Entries() {
		line("entry "+string('0'+rune(i)), append([]byte{byte(e.Kind)}, e.Data...))
	}
	line("etag", []byte(outcomes[1].Device.Etag))
	line("generation", []byte(outcomes[1].Device.Generation))
	root := v.Root()
	line("root", root[:])
	return b.String()
}

func TestDoorEntryRoundTrip(t *testing.T) {
	want := hub.DoorEntry{Door: "01JABC", First: 1 << 40, Count: 256, Resolved: 1<<40 - 3,
		Refused: []hub.Refusal{{Number: 1 << 40, Kind: tandem.NotFound}, {Number: 1<<40 + 9, Kind: tandem.Forbidden}}}
	b := hub.AppendDoorEntry(nil, want.Door, want.First, want.Count, want.Resolved, want.Refused)
	got, err := hub.DecodeDoorEntry(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, want)
	}
	for n := range b {
		if _, err := hub.DecodeDoorEntry(b[:n]); err == nil {
			t.Errorf("the first %d bytes decode", n)
		}
	}
}

func TestPartitionNeverChanges(t *testing.T) {
	for id, want := range map[tandem.DeviceID][3]int{"": {1, 25, 0}, "device-1": {3, 31, 0}, "Größe": {3, 27, 0}} {
		got := [3]int{hub.Partition(id, 4), hub.Partition(id, 32), hub.Partition(id, 1)}
		if got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}

func FuzzDeviceChange(f *testing.F) {
	for _, c := range changes() {
		f.Add(hub.AppendDeviceChange(nil, &c))
		f.Add(hub.AppendBulk(nil, []hub.DeviceChange{c, c}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := hub.DecodeDeviceChange(b); err == nil {
			if again := hub.AppendDeviceChange(nil, &c); string(again) != string(b) {
				t.Fatalf("% x became % x", b, again)
			}
		}
		if list, err := hub.DecodeBulk(b); err == nil {
			if again := hub.AppendBulk(nil, list); string(again) != string(b) {
				t.Fatalf("% x became % x", b, again)
			}
		}
	})
}

func FuzzEntries(f *testing.F) {
	f.Add(byte(hub.KindDoor), hub.AppendDoorEntry(nil, "d", 1, 2, 0, []hub.Refusal{{Number: 1, Kind: 4}, {Number: 2, Kind: 5}}))
	f.Add(byte(hub.KindTelemetry), []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 1, 'd', 2, '1', '2', 'm'})
	f.Add(byte(hub.KindDeviceDelete), []byte{1, 1, 'd'})
	f.Add(byte(hub.KindDevicePut), []byte{1, 0, 1, 'd', 0, 0, 0})
	v, c := openView(f, f.TempDir()), newChain(f)
	decide(f, v, c, change(hub.OpDeviceCreate, "d"))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		if e, err := hub.DecodeDoorEntry(b); err == nil {
			if again := hub.AppendDoorEntry(nil, e.Door, e.First, e.Count, e.Resolved, e.Refused); string(again) != string(b) {
				t.Fatalf("% x became % x", b, again)
			}
		}
		_, _ = hub.DecodeTelemetry(b)
		_, _ = hub.DecodeDeviceEntry(pairlog.Kind(kind), b)
		if kind == 0 || len(b) > pairlog.MaxEntryBytes {
			return
		}
		at := *c
		at.t = t
		rec := at.record(entry{pairlog.Kind(kind), b})
		if err := v.Apply(rec); err == nil {
			c.at, c.bytes = at.at, at.bytes
		}
	})
}
