package directory_test

import (
	"context"
	"testing"

	"tandem"
	"tandem/directory"
	"tandem/directory/directorytest"
)

func TestMemory(t *testing.T) {
	directorytest.Run(t, func(testing.TB) directory.Store { return directory.NewMemory().Client("westus2") })
}

func TestMemoryCut(t *testing.T) {
	memory := directory.NewMemory()
	a, b := memory.Client("westus2"), memory.Client("westcentralus")
	events := a.Watch(t.Context(), "", 0)
	a.Cut()
	_, err := a.Get(t.Context(), "k")
	if tandem.KindOf(err) != tandem.Unavailable {
		t.Fatalf("Get while cut: %v", err)
	}
	if _, open := <-a.Watch(t.Context(), "", 0); open {
		t.Fatal("a watch from now began while cut")
	}
	directorytest.Set(t, b, "k=1")
	if len(events) != 0 {
		t.Fatal("an event crossed the cut")
	}
	memory.Client("westus2").Join()
	if event := <-events; string(event.Item.Value) != "1" {
		t.Fatalf("after Join: %+v", event)
	}
}

func TestMemoryCompact(t *testing.T) {
	memory := directory.NewMemory()
	a, b := memory.Client("westus2"), memory.Client("westcentralus")
	directorytest.Set(t, b, "k=0")
	behind := a.Watch(t.Context(), "", 0)
	a.Cut()
	directorytest.Set(t, b, "k=1")
	last := directorytest.Set(t, b, "k=2")
	memory.Compact(last - 1)
	if event := <-b.Watch(t.Context(), "", last-1); string(event.Item.Value) != "2" {
		t.Fatalf("watch from the compacted revision: %+v", event)
	}
	if _, open := <-b.Watch(t.Context(), "", last-2); open {
		t.Fatal("a watch began in the forgotten past")
	}
	a.Join()
	if _, open := <-behind; open {
		t.Fatal("a watch skipped what it missed")
	}
}

func TestMemoryLostAnswer(t *testing.T) {
	a := directory.NewMemory().Client("westus2")
	a.LoseAnswers(1)
	_, err := a.Commit(context.Background(), directory.Txn{Then: []directory.Change{{Key: "k"}}})
	if tandem.KindOf(err) != tandem.Timeout {
		t.Fatalf("Commit: %v", err)
	}
	if _, err := a.Get(t.Context(), "k"); err != nil {
		t.Fatalf("the commit did not happen: %v", err)
	}
}
