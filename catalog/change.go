package catalog

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"tandem"
	"tandem/directory"
	"tandem/pairlog"
)

// Conditions that operators' doors act on.
var (
	// ErrHubExists: the name is taken, perhaps in another resource group.
	ErrHubExists = &tandem.Error{Op: "create the hub", Kind: tandem.Exists,
		Hint: "hub names are unique in the installation; choose another"}
	// ErrHubEtag: the resource was changed since the caller read it.
	ErrHubEtag = &tandem.Error{Op: "change the hub", Kind: tandem.Precondition, Hint: "read the hub again and use its etag"}
	// ErrHubMoving: an operation on the hub is under way.
	ErrHubMoving = &tandem.Error{Op: "delete the hub", Kind: tandem.Conflict,
		Hint: "an operation on this hub is under way; try again when it has ended"}
	// ErrContention: others changed the resource too often.
	ErrContention = &tandem.Error{Op: "change the hub", Kind: tandem.Unavailable, Hint: "others are changing this hub too; try again"}
	// ErrPolicyNotFound: the hub has no such policy.
	ErrPolicyNotFound = &tandem.Error{Op: "find the policy", Kind: tandem.NotFound}
)

const (
	attempts = 16
	// maxHubs bounds what a snapshot and a list may hold.
	maxHubs = 10_000
)

// CreateHub makes a hub from h's Name, Group, Home, SKU and what else is set of Replication, PlatformFailover,
// Partitions, RetentionDays, Policies (missing keys are generated) and Tags; the rest is filled in. When it returns nil
// the resource is durable in the directory. Invalid for what may not be, ErrHubExists, Unavailable; after Timeout,
// asking again tells.
func (c *Catalog) CreateHub(ctx context.Context, h Hub) (Hub, error) {
	h, err := c.complete(h)
	if err != nil {
		return Hub{}, err
	}
	if len(c.Hubs()) >= maxHubs {
		return Hub{}, &tandem.Error{Op: "create the hub", Kind: tandem.TooLarge, On: string(h.Name),
			Hint: fmt.Sprintf("an installation has at most %d hubs", maxHubs)}
	}
	stored, err := c.store(ctx, h, 0)
	switch {
	case errors.Is(err, errStale):
		return Hub{}, ErrHubExists
	case err != nil && tandem.KindOf(err) == tandem.Timeout:
		return c.created(ctx, h, err)
	}
	return stored, err
}

// created finds out whether a creation happened whose answer was lost.
func (c *Catalog) created(ctx context.Context, h Hub, lost error) (Hub, error) {
	item, err := c.options.Directory.Get(ctx, directory.HubKey(h.Name))
	if err != nil {
		return Hub{}, lost
	}
	now, err := decodeHub(item)
	switch {
	case err != nil:
		return Hub{}, err
	case now.ID != h.ID:
		return Hub{}, ErrHubExists
	}
	c.apply(directory.Event{Item: item})
	return now, nil
}

// complete fills in what a new hub needs and checks it.
func (c *Catalog) complete(h Hub) (Hub, error) {
	pair, ok := c.PairOf(h.Home)
	if !ok {
		return Hub{}, invalid(h.Name, fmt.Sprintf("region %q is not one of this installation's (%s)", h.Home, c.regionList()))
	}
	var id [8]byte
	if _, err := io.ReadFull(c.options.Random, id[:]); err != nil {
		return Hub{}, &tandem.Error{Op: "make a hub id", Kind: tandem.Internal, Err: err}
	}
	h.ID = tandem.HubID(hex.EncodeToString(id[:]))
	h.Pair = pair
	h.Subscription = c.options.Subscription
	h.Created = c.options.Clock.Now().UTC().Truncate(time.Millisecond)
	if h.Replication == "" {
		h.Replication = pairlog.Async
	}
	if h.PlatformFailover == "" {
		h.PlatformFailover = FailoverByOperator
	}
	if h.Partitions == 0 {
		h.Partitions = 4
	}
	if h.RetentionDays == 0 {
		h.RetentionDays = 1
	}
	if h.SKU.Name == "" {
		h.SKU = SKU{Name: "S1", Capacity: 1}
	}
	if len(h.Policies) == 0 {
		h.Policies = defaultPolicies
	}
	h.Policies, h.Tags = slices.Clone(h.Policies), maps.Clone(h.Tags)
	if err := fillKeys(h.Policies, c.options.Random); err != nil {
		return Hub{}, err
	}
	return h, h.check()
}

func (c *Catalog) regionList() string {
	var names []string
	for _, r := range c.Regions() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// UpdateHub lets change alter the resource and stores it; change is asked again when somebody else was faster. It may
// set Replication, PlatformFailover, RetentionDays, SKU, Policies and Tags; anything else is put back. With ifMatch the
// resource must still have that etag ("*" or empty: any). When it returns nil the change is durable in the directory.
// ErrHubNotFound, ErrHubEtag, Invalid, ErrContention, Unavailable, Timeout, or what change returned.
func (c *Catalog) UpdateHub(ctx context.Context, name tandem.HubName, ifMatch string, change func(*Hub) error) (Hub, error) {
	for range attempts {
		item, old, err := c.read(ctx, name, ifMatch)
		if err != nil {
			return Hub{}, err
		}
		next := old
		next.Policies, next.Tags = slices.Clone(old.Policies), maps.Clone(old.Tags)
		if err := change(&next); err != nil {
			return Hub{}, err
		}
		next.ID, next.Name, next.Subscription, next.Group = old.ID, old.Name, old.Subscription, old.Group
		next.Home, next.Pair, next.Partitions, next.Created = old.Home, old.Pair, old.Partitions, old.Created
		if err := fillKeys(next.Policies, c.options.Random); err != nil {
			return Hub{}, err
		}
		if err := next.check(); err != nil {
			return Hub{}, err
		}
		stored, err := c.store(ctx, next, item.Revision)
		if !errors.Is(err, errStale) {
			return stored, err
		}
	}
	return Hub{}, ErrContention
}

// A KeyName is one of a policy's two keys.
type KeyName string

// The keys of a policy.
const (
	PrimaryKey   KeyName = "primary"
	SecondaryKey KeyName = "secondary"
)

// RollKey gives one of a policy's keys a new value; tokens signed with the old one stop being accepted as soon as the
// nodes have heard of it. ErrPolicyNotFound, and as UpdateHub.
func (c *Catalog) RollKey(ctx context.Context, name tandem.HubName, policy string, key KeyName) (Hub, error) {
	return c.UpdateHub(ctx, name, "", func(h *Hub) error {
		for i := range h.Policies {
			if !strings.EqualFold(h.Policies[i].Name, policy) {
				continue
			}
			switch key {
			case PrimaryKey:
				h.Policies[i].Primary = ""
			case SecondaryKey:
				h.Policies[i].Secondary = ""
			default:
				return invalid(name, "a policy has a primary and a secondary key")
			}
			return nil
		}
		return ErrPolicyNotFound
	})
}

// DeleteHub removes the resource, its pen and its in-sync set at once, so that no region may answer for it any more;
// the name is free then. It refuses with ErrHubMoving while an operation has the hub. ErrHubNotFound, ErrHubEtag.
func (c *Catalog) DeleteHub(ctx context.Context, name tandem.HubName, ifMatch string) error {
	for range attempts {
		item, h, err := c.read(ctx, name, ifMatch)
		if err != nil {
			return err
		}
		done, err := c.options.Directory.Commit(ctx, directory.Txn{
			If: []directory.Compare{
				{Key: item.Key, Revision: item.Revision},
				{Key: directory.HubOperationKey(h.ID)},
			},
			Then: []directory.Change{
				{Key: item.Key, Delete: true},
				{Key: directory.PenKey(h.ID), Delete: true},
				{Key: directory.InSyncKey(h.ID), Delete: true},
			},
		})
		if err != nil {
			return fmt.Errorf("delete hub %s: %w", name, err)
		}
		if done.OK {
			c.apply(directory.Event{Item: directory.Item{Key: item.Key, Revision: done.Revision}, Deleted: true})
			return nil
		}
		for _, now := range done.Now {
			if now.Key == directory.HubOperationKey(h.ID) {
				return ErrHubMoving
			}
		}
	}
	return ErrContention
}

// read gets the stored resource, linearizably, and holds it against the caller's etag.
func (c *Catalog) read(ctx context.Context, name tandem.HubName, ifMatch string) (directory.Item, Hub, error) {
	if CheckName(name) != nil {
		return directory.Item{}, Hub{}, ErrHubNotFound
	}
	item, err := c.options.Directory.Get(ctx, directory.HubKey(name))
	switch {
	case errors.Is(err, directory.ErrNotFound):
		return item, Hub{}, ErrHubNotFound
	case err != nil:
		return item, Hub{}, fmt.Errorf("read hub %s: %w", name, err)
	}
	h, err := decodeHub(item)
	if err == nil && ifMatch != "" && ifMatch != "*" && ifMatch != h.Etag {
		err = ErrHubEtag
	}
	return item, h, err
}

// errStale says that the key was no longer at the revision expected.
var errStale = &tandem.Error{Op: "store the hub", Kind: tandem.Precondition}

// store writes h when its key is still at revision, and shows it to this node's readers at once.
func (c *Catalog) store(ctx context.Context, h Hub, revision directory.Revision) (Hub, error) {
	value, err := json.Marshal(h)
	if err != nil {
		return Hub{}, &tandem.Error{Op: "store the hub", Kind: tandem.Internal, On: string(h.Name), Err: err}
	}
	key := directory.HubKey(h.Name)
	done, err := c.options.Directory.Commit(ctx, directory.Txn{
		If:   []directory.Compare{{Key: key, Revision: revision}},
		Then: []directory.Change{{Key: key, Value: value}},
	})
	switch {
	case err != nil:
		return Hub{}, fmt.Errorf("store hub %s: %w", h.Name, err)
	case !done.OK:
		return Hub{}, errStale
	}
	c.apply(directory.Event{Item: directory.Item{Key: key, Value: value, Revision: done.Revision}})
	h.Etag = etag(done.Revision)
	return h, nil
}
