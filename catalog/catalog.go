// Package catalog holds what exists: the hubs of an installation with their policies and keys, and who may administer it.
//
// The resources live in the directory under directory.HubPrefix, one key per hub name, so that a name is unique by
// compare-and-set. Catalog keeps a snapshot of all of them on this node, fed by a watch: doors ask it for every
// connection and request without leaving the process. What a hub holds (devices, messages) is package hub's.
package catalog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tandem"
	"tandem/directory"
)

// Options are what a Catalog works with. Directory and Clock are needed, the rest may be left out.
type Options struct {
	Directory directory.Store
	Clock     tandem.Clock
	Logger    *slog.Logger
	// Notify hears HubAppeared, HubChanged and HubGone, in order.
	Notify tandem.Notify
	// Random makes hub ids and keys; nil is crypto/rand.
	Random io.Reader
	// Subscription and Tenant are the ids under which the installation's resources are addressed.
	Subscription, Tenant string
	// Domain is what follows a hub's name in its host name ("hub.test" makes "fab-17.hub.test").
	Domain string
	// Default is the hub meant by "localhost" and loopback addresses; empty means the oldest one.
	Default tandem.HubName
	// Pairs are the pairs of regions that this installation runs.
	Pairs []tandem.Pair
	// AdminToken is HashToken of the administrators' bearer token; zero lets nobody in.
	AdminToken [sha256.Size]byte
}

// Catalog is one node's picture of what exists, and the way to change it. All methods may be called by many goroutines.
type Catalog struct {
	options  Options
	snapshot atomic.Pointer[snapshot]
	fresh    atomic.Bool // the watch is up: what the snapshot lacks does not exist
	ready    chan struct{}
	loaded   sync.Once

	mu    sync.Mutex
	hubs  map[string]Hub                // by directory key
	known map[string]directory.Revision // newest revision seen of each key, deleted ones included
}

// A snapshot is never changed after it was published.
type snapshot struct {
	byName map[tandem.HubName]*Hub // by HubName.Key
	byID   map[tandem.HubID]*Hub
	all    []Hub // by name
	oldest *Hub
}

// New returns a catalog that knows nothing until Run has read the directory.
func New(o Options) *Catalog {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	o.Domain = strings.ToLower(strings.Trim(o.Domain, "."))
	return &Catalog{options: o, ready: make(chan struct{}), hubs: map[string]Hub{}, known: map[string]directory.Revision{}}
}

// Ready is closed once the directory was read for the first time.
func (c *Catalog) Ready() <-chan struct{} { return c.ready }

// Subscription is the id of the installation's subscription.
func (c *Catalog) Subscription() string { return c.options.Subscription }

// Tenant is the id of the installation's tenant.
func (c *Catalog) Tenant() string { return c.options.Tenant }

// Regions are the regions of the installation's pairs, each once, by name.
func (c *Catalog) Regions() []tandem.RegionName {
	var regions []tandem.RegionName
	for _, pair := range c.options.Pairs {
		regions = append(regions, pair.A, pair.B)
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}

// PairOf returns the pair that region belongs to, and false when this installation does not run the region.
func (c *Catalog) PairOf(region tandem.RegionName) (tandem.Pair, bool) {
	for _, pair := range c.options.Pairs {
		if _, ok := pair.Other(region); ok {
			return pair, true
		}
	}
	return tandem.Pair{}, false
}

// HostName is the name under which clients reach a hub.
func (c *Catalog) HostName(name tandem.HubName) string {
	if c.options.Domain == "" {
		return string(name)
	}
	return string(name) + "." + c.options.Domain
}

// ErrNotReady is returned while the node has not read the directory, or has lost it and does not know the hub.
var ErrNotReady = &tandem.Error{Op: "find the hub", Kind: tandem.Unavailable, Hint: "the directory does not answer yet; try again"}

// ErrHubNotFound is returned for a hub that does not exist.
var ErrHubNotFound = &tandem.Error{Op: "find the hub", Kind: tandem.NotFound}

// Hub returns the hub that a client names: by name, by host name with or without a port, case-insensitively, or by
// "localhost" or a loopback address, which mean the default hub. ErrHubNotFound; ErrNotReady when that is not certain.
// The hub's slices and maps are shared: do not change them.
func (c *Catalog) Hub(host string) (Hub, error) {
	s := c.snapshot.Load()
	if s == nil {
		return Hub{}, ErrNotReady
	}
	var found *Hub
	switch name := trimHost(host); {
	case isLoopback(name) && c.options.Default != "":
		found = s.byName[c.options.Default.Key()]
	case isLoopback(name):
		found = s.oldest
	default:
		if c.options.Domain != "" {
			name = strings.TrimSuffix(name, "."+c.options.Domain)
		}
		found = s.byName[tandem.HubName(name)]
	}
	return c.found(found)
}

// HubByID returns the hub with this id. ErrHubNotFound, ErrNotReady. The hub is shared: do not change it.
func (c *Catalog) HubByID(id tandem.HubID) (Hub, error) {
	s := c.snapshot.Load()
	if s == nil {
		return Hub{}, ErrNotReady
	}
	return c.found(s.byID[id])
}

func (c *Catalog) found(h *Hub) (Hub, error) {
	switch {
	case h != nil:
		return *h, nil
	case !c.fresh.Load():
		return Hub{}, ErrNotReady
	}
	return Hub{}, ErrHubNotFound
}

// Hubs returns all hubs in order of name: as of the last change seen, none before Ready. They are shared: do not change them.
func (c *Catalog) Hubs() []Hub {
	if s := c.snapshot.Load(); s != nil {
		return s.all
	}
	return nil
}

// trimHost folds case and cuts off the port and the brackets of an IPv6 address.
func trimHost(host string) string {
	host = strings.ToLower(host)
	if rest, ok := strings.CutPrefix(host, "["); ok {
		host, _, _ = strings.Cut(rest, "]")
		return host
	}
	if i := strings.IndexByte(host, ':'); i >= 0 && strings.LastIndexByte(host, ':') == i {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// HashToken is what is kept of an administrator's token. Tokens are long random strings, so one SHA-256 is enough.
func HashToken(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// ErrToken is returned for a missing or wrong administrator's token.
var ErrToken = &tandem.Error{Op: "check the token", Kind: tandem.Unauthorized,
	Hint: "send 'Authorization: Bearer …' with the token from the environment file (TANDEM_CLIENT_SECRET)"}

// CheckToken returns nil for the administrators' token, else ErrToken. It takes the same time for every wrong one.
func (c *Catalog) CheckToken(token string) error {
	sum := HashToken(token)
	if token == "" || c.options.AdminToken == ([sha256.Size]byte{}) ||
		subtle.ConstantTimeCompare(sum[:], c.options.AdminToken[:]) != 1 {
		return ErrToken
	}
	return nil
}

// retryAfter is how long Run waits before it asks a silent directory again.
const retryAfter = 200 * time.Millisecond

// Run keeps the snapshot up to date until ctx ends, and then returns nil. While the directory does not answer, the
// last snapshot stays.
func (c *Catalog) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		items, revision, err := c.options.Directory.List(ctx, directory.HubPrefix())
		if err == nil {
			c.replace(items, revision)
			c.fresh.Store(true)
			c.loaded.Do(func() { close(c.ready) })
			for event := range c.options.Directory.Watch(ctx, directory.HubPrefix(), revision) {
				c.apply(event)
			}
		}
		if ctx.Err() != nil {
			break
		}
		c.fresh.Store(false)
		c.options.Logger.Warn("hubs are not being watched", "err", err)
		select {
		case <-ctx.Done():
		case <-c.options.Clock.After(retryAfter):
		}
	}
	return nil
}

// replace makes items, as listed at revision, the picture. What this node itself changed later stays.
func (c *Catalog) replace(items []directory.Item, revision directory.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	listed := make(map[string]bool, len(items))
	for _, item := range items {
		listed[item.Key] = true
		c.set(directory.Event{Item: item})
	}
	for key := range c.hubs {
		if !listed[key] && c.known[key] <= revision {
			c.set(directory.Event{Item: directory.Item{Key: key, Revision: revision}, Deleted: true})
		}
	}
	maps.DeleteFunc(c.known, func(key string, r directory.Revision) bool { return r <= revision && !listed[key] })
	c.publish()
}

// apply folds one change, unless the same or a newer one of its key was folded.
func (c *Catalog) apply(event directory.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set(event) {
		c.publish()
	}
}

func (c *Catalog) set(event directory.Event) bool {
	key := event.Item.Key
	if event.Item.Revision <= c.known[key] {
		return false
	}
	old, had := c.hubs[key]
	if event.Deleted {
		c.known[key] = event.Item.Revision
		delete(c.hubs, key)
		if had {
			c.options.Notify.Send(HubGone{Hub: old})
		}
		return had
	}
	h, err := decodeHub(event.Item)
	if err != nil {
		c.options.Logger.Error("a hub's resource cannot be read", "key", key, "err", err)
		return false
	}
	c.known[key] = event.Item.Revision
	c.hubs[key] = h
	switch {
	case had && old.ID == h.ID:
		c.options.Notify.Send(HubChanged{Old: old, Hub: h})
	case had: // deleted and made anew between two looks
		c.options.Notify.Send(HubGone{Hub: old})
		fallthrough
	default:
		c.options.Notify.Send(HubAppeared{Hub: h})
	}
	return true
}

func (c *Catalog) publish() {
	s := &snapshot{
		byName: make(map[tandem.HubName]*Hub, len(c.hubs)),
		byID:   make(map[tandem.HubID]*Hub, len(c.hubs)),
		all: slices.SortedFunc(maps.Values(c.hubs), func(a, b Hub) int {
			return strings.Compare(string(a.Name.Key()), string(b.Name.Key()))
		}),
	}
	for i := range s.all {
		h := &s.all[i]
		s.byName[h.Name.Key()] = h
		s.byID[h.ID] = h
		if s.oldest == nil || h.Created.Before(s.oldest.Created) {
			s.oldest = h
		}
	}
	c.snapshot.Store(s)
}
