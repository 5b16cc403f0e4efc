package catalog_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/catalog"
	"tandem/directory"
	"tandem/pairlog"
)

var pairs = []tandem.Pair{{A: "westus2", B: "westcentralus"}}

// start runs a catalog of one site until the test ends, and waits until it has read the directory.
func start(t *testing.T, store directory.Store, o catalog.Options) *catalog.Catalog {
	t.Helper()
	o.Directory, o.Clock, o.Pairs = store, tandem.SystemClock{}, pairs
	if o.Domain == "" {
		o.Domain = "hub.test"
	}
	c := catalog.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-c.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the catalog is not ready")
	}
	return c
}

func spec(name tandem.HubName) catalog.Hub {
	return catalog.Hub{Name: name, Group: "rg", Home: "westus2", SKU: catalog.SKU{Name: "S1", Capacity: 1}}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestCreateIsSeenInBothRegions(t *testing.T) {
	m := directory.NewMemory()
	var mu sync.Mutex
	var heard []string
	notify := func(n tandem.Notice) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, n.NoticeName())
	}
	one := start(t, m.Client("one"), catalog.Options{Subscription: "sub"})
	two := start(t, m.Client("two"), catalog.Options{Notify: notify})
	made, err := one.CreateHub(t.Context(), spec("Fab-17"))
	if err != nil {
		t.Fatal(err)
	}
	if len(made.ID) != 16 || made.Partitions != 4 || made.RetentionDays != 1 || made.Replication != pairlog.Async ||
		made.Peer() != "westcentralus" || made.Subscription != "sub" || len(made.Policies) != 5 || made.Etag == "" {
		t.Errorf("made %+v", made)
	}
	if p, ok := made.Policy("IotHubOwner"); !ok || p.Primary == p.Secondary || len(p.Primary) != 44 {
		t.Errorf("owner policy %+v, %v", p, ok)
	}
	if h, err := one.Hub("FAB-17.hub.test:8883"); err != nil || h.ID != made.ID || h.Etag != made.Etag {
		t.Errorf("at once: %+v, %v", h, err)
	}
	eventually(t, "the other region does not see the hub", func() bool { h, err := two.Hub("fab-17"); return err == nil && h.Etag == made.Etag })
	if _, err := two.UpdateHub(t.Context(), "fab-17", made.Etag, func(h *catalog.Hub) error { h.Replication = "sync-strict"; return nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change is not seen", func() bool { h, _ := one.Hub("fab-17"); return h.Replication == "sync-strict" })
	if err := one.DeleteHub(t.Context(), "fab-17", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Hub("fab-17"); !errors.Is(err, catalog.ErrHubNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	want := []string{"hub appeared", "hub changed", "hub gone"}
	eventually(t, "notices are missing", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Equal(heard, want) })
}

func TestNames(t *testing.T) {
	c := start(t, directory.NewMemory().Client("one"), catalog.Options{})
	for _, name := range []tandem.HubName{"", "ab", "-abc", "abc-", "12345", "a_b_c", "localhost", tandem.HubName(make([]byte, 51))} {
		if _, err := c.CreateHub(t.Context(), spec(name)); tandem.KindOf(err) != tandem.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := c.CreateHub(t.Context(), spec("Fab")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateHub(t.Context(), spec("fAB")); !errors.Is(err, catalog.ErrHubExists) {
		t.Errorf("same name in another case: %v", err)
	}
	away := spec("other")
	away.Home = "eastus"
	if _, err := c.CreateHub(t.Context(), away); tandem.KindOf(err) != tandem.Invalid {
		t.Errorf("a region that is not ours: %v", err)
	}
}

func TestHostNames(t *testing.T) {
	c := start(t, directory.NewMemory().Client("one"), catalog.Options{})
	if _, err := c.Hub("localhost"); !errors.Is(err, catalog.ErrHubNotFound) {
		t.Errorf("no hub yet: %v", err)
	}
	for _, name := range []tandem.HubName{"fab", "zoo"} {
		if _, err := c.CreateHub(t.Context(), spec(name)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // creation times are kept in milliseconds
	}
	for _, host := range []string{"fab", "FAB.Hub.Test", "fab.hub.test.", "fab.hub.test:443", "localhost", "localhost:8883", "127.0.0.1:1",
		"127.0.0.1", "::1", "[::1]:8883"} {
		if h, err := c.Hub(host); err != nil || h.Name != "fab" {
			t.Errorf("%s: %q, %v", host, h.Name, err)
		}
	}
	for _, host := range []string{"", "fab.example.com", "fabhub.test", "10.0.0.1", "hub.test"} {
		if _, err := c.Hub(host); !errors.Is(err, catalog.ErrHubNotFound) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestEtagAndRaces(t *testing.T) {
	m := directory.NewMemory()
	c := start(t, m.Client("one"), catalog.Options{})
	made, err := c.CreateHub(t.Context(), spec("fab"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			tag := string(rune('a' + i))
			if _, err := c.UpdateHub(t.Context(), "fab", "", func(h *catalog.Hub) error {
				if h.Tags == nil {
					h.Tags = map[string]string{}
				}
				h.Tags[tag] = tag
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	now, _ := c.Hub("fab")
	if len(now.Tags) != 8 {
		t.Errorf("a change was lost: %v", now.Tags)
	}
	if err := c.DeleteHub(t.Context(), "fab", made.Etag); !errors.Is(err, catalog.ErrHubEtag) {
		t.Errorf("old etag: %v", err)
	}
	if _, err := m.Client("one").Commit(t.Context(), directory.Txn{Then: []directory.Change{
		{Key: directory.HubOperationKey(made.ID), Value: []byte("op")}}}); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteHub(t.Context(), "fab", now.Etag); !errors.Is(err, catalog.ErrHubMoving) {
		t.Errorf("while moving: %v", err)
	}
}

func TestRollKey(t *testing.T) {
	c := start(t, directory.NewMemory().Client("one"), catalog.Options{})
	made, err := c.CreateHub(t.Context(), spec("fab"))
	if err != nil {
		t.Fatal(err)
	}
	rolled, err := c.RollKey(t.Context(), "fab", "service", catalog.PrimaryKey)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := made.Policy("service")
	after, _ := rolled.Policy("service")
	if after.Primary == before.Primary || after.Secondary != before.Secondary || after.Primary == "" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if _, err := c.RollKey(t.Context(), "fab", "nobody", catalog.PrimaryKey); !errors.Is(err, catalog.ErrPolicyNotFound) {
		t.Errorf("unknown policy: %v", err)
	}
}

func TestLostAnswer(t *testing.T) {
	client := directory.NewMemory().Client("one")
	c := start(t, client, catalog.Options{})
	client.LoseAnswers(1)
	if h, err := c.CreateHub(t.Context(), spec("fab")); err != nil || h.Etag == "" {
		t.Errorf("a creation that happened: %+v, %v", h, err)
	}
}

func TestCutOff(t *testing.T) {
	m := directory.NewMemory()
	client := m.Client("one")
	c := start(t, client, catalog.Options{})
	if _, err := c.CreateHub(t.Context(), spec("fab")); err != nil {
		t.Fatal(err)
	}
	client.Cut()
	if _, err := c.CreateHub(t.Context(), spec("zoo")); tandem.KindOf(err) != tandem.Unavailable {
		t.Errorf("cut off: %v", err)
	}
	if _, err := c.Hub("fab"); err != nil {
		t.Errorf("a known hub while cut off: %v", err)
	}
	starting := catalog.New(catalog.Options{Directory: client, Clock: tandem.SystemClock{}})
	if _, err := starting.Hub("fab"); !errors.Is(err, catalog.ErrNotReady) {
		t.Errorf("before the first look: %v", err)
	}
}

func TestAdminToken(t *testing.T) {
	c := catalog.New(catalog.Options{AdminToken: catalog.HashToken("secret")})
	if err := c.CheckToken("secret"); err != nil {
		t.Error(err)
	}
	nobody := catalog.New(catalog.Options{})
	for _, err := range []error{c.CheckToken("Secret"), c.CheckToken(""), nobody.CheckToken("")} {
		if !errors.Is(err, catalog.ErrToken) {
			t.Errorf("got %v", err)
		}
	}
}
