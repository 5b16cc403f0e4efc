package hub_test

import (
	"testing"

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
