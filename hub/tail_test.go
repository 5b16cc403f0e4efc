package hub_test

import (
	"testing"

	"tandem"
	"tandem/hub"
)

// What b's door had sent to a, and a had stored, is sent again to b after a forced move: it stands in a's tail and in the
// log, and is not lost. What a's own door had sent is.
func TestTailItemsLeaveOutWhatWasSentAgain(t *testing.T) {
	p := newPair(t)
	p.device("a", "here")
	p.device("b", "there")
	eventually(t, "b has the devices", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
	p.regions["b"].store.SetFull(true) // b's copy ends here; its door does not
	const each = 20
	for n := range each {
		if _, err := p.handle("b").Do(t.Context(), telemetry("there", n)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.handle("a").Do(t.Context(), telemetry("here", n)); err != nil {
			t.Fatal(err)
		}
	}
	p.regions["a"].replica.Fence()
	p.regions["b"].store.SetFull(false)
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.claim("b", 2, fork, true)
	if ids := p.events("b", each); len(ids["there"]) != each {
		t.Fatalf("events after the forced move: %v", ids)
	}
	eventually(t, "a has what was sent again", func() bool { return p.regions["a"].replica.Facts().Applied == p.regions["b"].replica.Facts().Applied })
	items := map[string]int{}
	err = p.regions["a"].replica.TailItems(t.Context(), 1, func(item hub.TailItem) error {
		items[string(item.Device)]++
		return nil
	})
	if err != nil || len(items) != 1 || items["here"] != each {
		t.Fatalf("stranded: %v, %v", items, err)
	}
}

// A change that b's door had made through a, and that a lost revocation came after, is not made again by sending it again.
func TestSendingAgainDoesNotUndoALostRevocation(t *testing.T) {
	p := newPair(t)
	p.device("a", "d")
	p.device("a", "e")
	eventually(t, "b has the devices", func() bool { return p.regions["b"].replica.Facts().Applied == p.regions["a"].replica.Facts().Applied })
	put := func(id tandem.DeviceID, status hub.Status, reason string) hub.DeviceChange {
		return hub.DeviceChange{Op: hub.OpDevicePut, ID: string(id), Status: status, StatusReason: reason,
			Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")}}
	}
	do := func(region tandem.RegionName, c hub.DeviceChange) {
		t.Helper()
		command := hub.Command{Op: c.Op, Device: tandem.DeviceID(c.ID), Body: hub.AppendDeviceChange(nil, &c)}
		if _, err := p.handle(region).Do(t.Context(), &command); err != nil {
			t.Fatal(err)
		}
	}
	p.regions["b"].store.SetFull(true) // b's copy ends here; its door does not
	do("b", put("d", hub.Enabled, "one"))
	bulk := hub.Command{Op: hub.OpBulk, Body: hub.AppendBulk(nil, []hub.DeviceChange{put("d", hub.Enabled, "two"), put("e", hub.Enabled, "two")})}
	if _, err := p.handle("b").Do(t.Context(), &bulk); err != nil {
		t.Fatal(err)
	}
	do("a", put("d", hub.Disabled, "stolen"))
	p.regions["a"].replica.Fence()
	p.regions["b"].store.SetFull(false)
	fork, err := p.regions["b"].replica.EndCopy(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p.claim("b", 2, fork, true)
	if _, err := p.handle("b").Do(t.Context(), telemetry("e", 1)); err != nil { // by now all was sent again
		t.Fatal(err)
	}
	if d, err := p.handle("b").Device(t.Context(), "d"); err != nil || d.Status != hub.Disabled {
		t.Errorf("the disabled device is %s (%s), %v", d.Status, d.StatusReason, err)
	}
	if d, err := p.handle("b").Device(t.Context(), "e"); err != nil || d.StatusReason != "two" {
		t.Errorf("the other device is %s (%s), %v", d.Status, d.StatusReason, err)
	}
}
