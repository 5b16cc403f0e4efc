package directory

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"tandem"
)

// memoryHistory is how many changes, at least, a Memory keeps for watches that begin in the past.
const memoryHistory = 1 << 16

// Memory is the directory's twin for tests: one linearizable map, shared by the clients of several sites. It starts no
// goroutine and reads no clock, so a simulation that owns both can own it too.
type Memory struct {
	mu       sync.Mutex
	items    map[string]Item
	revision Revision
	history  []Event // in order; the changes up to and including compacted are gone
	compact  Revision
	clients  map[string]*MemoryClient
	watches  map[*memoryWatch]struct{}
}

// NewMemory returns an empty directory.
func NewMemory() *Memory {
	return &Memory{
		items:   make(map[string]Item),
		clients: make(map[string]*MemoryClient),
		watches: make(map[*memoryWatch]struct{}),
	}
}

// Client returns the connection of one site ("westus2"); the same name gives the same connection.
func (m *Memory) Client(site string) *MemoryClient {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clients[site]
	if c == nil {
		c = &MemoryClient{memory: m, site: site}
		m.clients[site] = c
	}
	return c
}

// Compact forgets the changes up to and including revision; watches that begin before it are closed.
func (m *Memory) Compact(revision Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision <= m.compact || revision > m.revision {
		return
	}
	m.compact = revision
	m.history = slices.Clone(m.history[m.after(revision):])
	for w := range m.watches {
		m.pump(w)
	}
}

// MemoryClient is a Store over a Memory, as one site sees it.
type MemoryClient struct {
	memory *Memory
	site   string

	// under memory.mu
	cut  bool
	lose int
}

// Cut takes the site's connection away: every call fails with Unavailable, watches stand still.
func (c *MemoryClient) Cut() {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	c.cut = true
}

// Join ends a Cut. Watches deliver what they missed, or are closed when it is no longer kept.
func (c *MemoryClient) Join() {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	c.cut = false
	for w := range m.watches {
		if w.client == c {
			m.pump(w)
		}
	}
}

// LoseAnswers lets the next n commits happen, or be refused, and then fail with Timeout, as when the answer is lost.
func (c *MemoryClient) LoseAnswers(n int) {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	c.lose = n
}

var _ Store = (*MemoryClient)(nil)

// reach says whether a request would arrive. Called with memory.mu held.
func (c *MemoryClient) reach(ctx context.Context, op, on string) error {
	if ctx.Err() != nil {
		return unavailable(op, on, context.Cause(ctx))
	}
	if c.cut {
		return unavailable(op, on, errors.New(c.site+" is cut off"))
	}
	return nil
}

// Get is Store.Get.
func (c *MemoryClient) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(opRead, key); err != nil {
		return Item{}, err
	}
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.reach(ctx, opRead, key); err != nil {
		return Item{}, err
	}
	item, ok := m.items[key]
	if !ok {
		return Item{}, ErrNotFound
	}
	return item.clone(), nil
}

// List is Store.List.
func (c *MemoryClient) List(ctx context.Context, prefix string) ([]Item, Revision, error) {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.reach(ctx, opRead, prefix); err != nil {
		return nil, 0, err
	}
	var items []Item
	for key, item := range m.items {
		if strings.HasPrefix(key, prefix) {
			items = append(items, item.clone())
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return items, m.revision, nil
}

// Commit is Store.Commit.
func (c *MemoryClient) Commit(ctx context.Context, txn Txn) (Committed, error) {
	if err := txn.check(); err != nil {
		return Committed{}, err
	}
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.reach(ctx, opCommit, ""); err != nil {
		return Committed{}, err
	}
	done := m.commit(txn)
	if c.lose > 0 {
		c.lose--
		return Committed{}, &tandem.Error{Op: opCommit, Kind: tandem.Timeout, Err: errors.New("the answer was lost")}
	}
	return done, nil
}

func (m *Memory) commit(txn Txn) Committed {
	holds := true
	for _, cmp := range txn.If {
		holds = holds && m.items[cmp.Key].Revision == cmp.Revision
	}
	if !holds {
		return Committed{Revision: m.revision, Now: m.now(txn.If)}
	}
	next := m.revision + 1
	for _, change := range txn.Then {
		if change.Delete {
			if _, ok := m.items[change.Key]; !ok {
				continue
			}
			delete(m.items, change.Key)
			m.history = append(m.history, Event{Item: Item{Key: change.Key, Revision: next}, Deleted: true})
		} else {
			item := Item{Key: change.Key, Value: bytes.Clone(change.Value), Revision: next}
			m.items[change.Key] = item
			m.history = append(m.history, Event{Item: item})
		}
		m.revision = next
	}
	if len(m.history) > 2*memoryHistory {
		m.compact = m.history[memoryHistory].Item.Revision
		m.history = slices.Clone(m.history[m.after(m.compact):])
	}
	for w := range m.watches {
		m.pump(w)
	}
	return Committed{OK: true, Revision: m.revision}
}

// now returns the items of the compared keys, each once.
func (m *Memory) now(compared []Compare) []Item {
	var items []Item
	seen := make(map[string]bool, len(compared))
	for _, cmp := range compared {
		if item, ok := m.items[cmp.Key]; ok && !seen[cmp.Key] {
			seen[cmp.Key] = true
			items = append(items, item.clone())
		}
	}
	return items
}

// after is the index in history of the first change past revision.
func (m *Memory) after(revision Revision) int {
	i, _ := slices.BinarySearchFunc(m.history, revision, func(e Event, r Revision) int {
		if e.Item.Revision <= r {
			return -1
		}
		return 1
	})
	return i
}

type memoryWatch struct {
	client *MemoryClient
	prefix string
	done   Revision // everything up to here was delivered
	events chan Event
}

// Watch is Store.Watch.
func (c *MemoryClient) Watch(ctx context.Context, prefix string, from Revision) <-chan Event {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &memoryWatch{client: c, prefix: prefix, done: from, events: make(chan Event, watchBuffer)}
	if from == 0 {
		w.done = m.revision
		if c.reach(ctx, opRead, prefix) != nil { // "now" is not known here
			close(w.events)
			return w.events
		}
	}
	m.watches[w] = struct{}{}
	m.pump(w)
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.drop(w)
	})
	return w.events
}

// pump delivers to w what it has not seen. Called with mu held.
func (m *Memory) pump(w *memoryWatch) {
	if w.client.cut {
		return
	}
	if w.done < m.compact {
		m.drop(w)
		return
	}
	for _, event := range m.history[m.after(w.done):] {
		if !strings.HasPrefix(event.Item.Key, w.prefix) {
			continue
		}
		event.Item = event.Item.clone()
		select {
		case w.events <- event:
		default: // the reader is too far behind
			m.drop(w)
			return
		}
	}
	w.done = max(w.done, m.revision)
}

func (m *Memory) drop(w *memoryWatch) {
	if _, ok := m.watches[w]; ok {
		delete(m.watches, w)
		close(w.events)
	}
}

func (i Item) clone() Item {
	i.Value = bytes.Clone(i.Value)
	return i
}
