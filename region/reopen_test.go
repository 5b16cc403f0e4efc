package region

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/failover"
	"tandem/hub"
	"tandem/pairlog"
)

const (
	testHub tandem.HubID = "00000000000000b1"
	ttl                  = 400 * time.Millisecond
)

// side is one region: a replica on a memory store and the controller that drives it.
type side struct {
	replica *hub.Replica
	store   *pairlog.Memory
}

func (s *side) Replica(tandem.HubID) (failover.Replica, bool) { return driven{s.replica}, true }

func openSide(t *testing.T, memory *directory.Memory, net *pairlog.MemoryNetwork, region, peer tandem.RegionName) *side {
	t.Helper()
	dir, clock, s := memory.Client(string(region)), tandem.SystemClock{}, &side{store: pairlog.NewMemory()}
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("at", region)
	}
	incarnation := tandem.Incarnation(region + "-life")
	var err error
	s.replica, err = hub.OpenReplica(t.Context(), hub.ReplicaOptions{
		Info: hub.Info{ID: testHub, Name: "fab", Partitions: 4}, Dir: t.TempDir(), Region: region, Peer: peer,
		Node: tandem.NodeName(region + "-0"), Incarnation: incarnation, Store: s.store, Link: net.Link(region),
		Directory: dir, Clock: clock, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	holder := directory.NewHolder(dir, clock, directory.HolderOptions{Incarnation: incarnation, TTL: ttl})
	controller := failover.New(failover.Options{
		Region: region, Peer: peer, Node: tandem.NodeName(region + "-0"), Directory: dir, Link: net.Link(region),
		Lease: holder, Taker: directory.NewTaker(dir, clock, incarnation, ttl), Replicas: s,
		Hubs:  func() []failover.Hub { return []failover.Hub{{ID: testHub, Name: "fab", Home: "a", Peer: "b"}} },
		Clock: clock, Logger: logger, TTL: ttl, Deadline: time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = holder.Keep(ctx, func(context.Context) error { return nil }) })
	tasks.Go(func() {
		if err := errors.Join(s.replica.Run(ctx)); err != nil {
			t.Error(err)
		}
	})
	tasks.Go(func() {
		if err := controller.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); tasks.Wait() })
	return s
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// An engine that goes silent for want of room costs an epoch, not the hub: with room it opens again by itself, once.
func TestHubReopensWhenTheDiskHasRoomAgain(t *testing.T) {
	memory, net := directory.NewMemory(), pairlog.NewMemoryNetwork()
	a, b := openSide(t, memory, net, "a", "b"), openSide(t, memory, net, "b", "a")
	await(t, "the hub to open", func() bool {
		return a.replica.Facts().Role == hub.RoleHolder && b.replica.Facts().Role == hub.RoleFollower
	})
	create := &hub.Command{Op: hub.OpDeviceCreate, Device: "d", Body: hub.AppendDeviceChange(nil, &hub.DeviceChange{
		Op: hub.OpDeviceCreate, ID: "d", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: []byte("k1"), SecondaryKey: []byte("k2")}})}
	if _, err := a.replica.Handle().Do(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	space := a.store.Space()
	a.store.SetFull(true)
	sent := make(chan error, 1)
	go func() { // in the middle of it: unanswered until the hub is open again
		message := &hub.Command{Op: hub.OpTelemetry, Device: "d", Body: hub.AppendMessage(nil, &hub.Message{Body: []byte("x")})}
		_, err := a.replica.Handle().Do(context.Background(), message)
		sent <- err
	}()
	time.Sleep(10 * time.Millisecond)
	a.store.SetSpace(pairlog.Space{Total: space.Total})
	await(t, "the writer to give up", func() bool { return a.replica.Facts().Role == hub.RoleFenced })
	time.Sleep(4 * ttl)
	pen, _, err := pairlog.ReadPen(t.Context(), memory.Client("witness"), testHub)
	if err != nil || pen.Epoch != 1 {
		t.Fatalf("with a full disk epoch %d was claimed, %v", pen.Epoch, err)
	}
	a.store.SetFull(false)
	a.store.SetSpace(space)
	await(t, "the hub to open again", func() bool { f := a.replica.Facts(); return f.Role == hub.RoleHolder && f.Epoch == 2 })
	select {
	case err := <-sent:
		if err != nil {
			t.Fatalf("the message of meanwhile: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the message of meanwhile is not answered")
	}
	await(t, "the peer to follow", func() bool { return b.replica.Facts().Applied == a.replica.Facts().Applied })
}
