// Package dev is `tandem dev`: a whole installation on one machine, for trying things out and for tests.
//
//	                 ┌─▶ westus2        127.0.1.1 ◀─┐
//	front door ──────┤                              ├─ relays, which cut and join ─▶ witness 127.0.3.1
//	127.0.0.1, ::1   └─▶ westcentralus  127.0.2.1 ◀─┘
//
// It starts one process per site, plays DNS and traffic manager in front of them, makes a hub and a device through the
// public doors, and writes an environment file for other programs. It brings faults on command (kill, stop, cut) and
// never repairs one by itself. What the processes do is package region's.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/client"
	"tandem/region"
)

// Options are what a Dev is told. Zero values mean the defaults of Default.
type Options struct {
	Program        string // the tandem binary that the sites run
	Data           string // everything it keeps
	Regions        []tandem.RegionName
	Addresses      []string // of the regions and the witness
	PortOffset     int
	Domain         string
	Hub            string
	Device         string
	FailoverLimits string
	LeaseTTL       time.Duration
	LogLevel       string
	NoRelays       bool
	// Warnings is where warnings of the sites are shown as they come, prefixed; nil shows none.
	Warnings io.Writer
	// Progress is told what is being waited for; may be nil.
	Progress func(phase string)
	// Ready is called once, when everything answers and the environment file is written.
	Ready  func(Ready)
	Logger *slog.Logger
}

// Default are the options of `tandem dev` without flags.
func Default() Options {
	return Options{
		Data: ".tandem", Regions: []tandem.RegionName{"westus2", "westcentralus"},
		Addresses: []string{"127.0.1.1", "127.0.2.1", "127.0.3.1"}, Domain: "tandem.localhost",
		Hub: "hub-1", Device: "device-1", FailoverLimits: "off", LeaseTTL: 3 * time.Second, LogLevel: "info",
	}
}

// Ready is what runs, for a welcome.
type Ready struct {
	Sites        []SiteInfo
	Took         time.Duration
	Hub, Holder  string
	Environment  string // file
	ARM          string
	HubString    string // connection string of the hub's owner
	DeviceString string
	Notes        []string // what does not work here, and the command that helps
}

// SiteInfo is one site, for people.
type SiteInfo struct {
	Name, Display, Address, Log string
	PID                         int
	Witness                     bool
}

// Dev is an installation on this machine.
type Dev struct {
	o      Options
	plan   *plan
	sites  []*site
	relays *relays
	front  *frontDoor
	client *client.Client
	ids    installation

	envMu   sync.Mutex // guards env, and writing the file
	env     environment
	stopped bool
}

// New checks the options. It touches nothing.
func New(o Options) (*Dev, error) {
	if len(o.Regions) != 2 || len(o.Addresses) != 3 || o.Regions[0] == o.Regions[1] {
		return nil, &tandem.Error{Op: "start", Kind: tandem.Invalid, Err: errors.New("two different regions and three addresses are needed")}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, &tandem.Error{Op: "start", Err: err}
	}
	o.Data = data
	return &Dev{o: o}, nil
}

// Run starts everything, stays until ctx ends, and leaves nothing running. It returns nil after a stop by ctx. Kind
// Conflict: another one uses the data directory or a port.
func (d *Dev) Run(ctx context.Context) (err error) {
	began := time.Now()
	if err := os.MkdirAll(d.o.Data, 0o700); err != nil {
		return &tandem.Error{Op: "start", Kind: tandem.Forbidden, Err: err}
	}
	lock, err := lockData(d.o.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	_ = os.Remove(filepath.Join(d.o.Data, "env")) // of one that was killed; it is written anew when everything answers
	if d.ids, err = openInstallation(d.o, time.Now()); err != nil {
		return err
	}
	d.plan = newPlan(d.o, d.ids)
	if err := d.plan.probe(); err != nil {
		return err
	}
	if err := d.plan.write(time.Now()); err != nil {
		return err
	}
	for _, s := range d.plan.sites {
		d.sites = append(d.sites, newSite(s, d.o, d.pidChanged))
	}
	if !d.o.NoRelays {
		if d.relays, err = listenRelays(d.plan, d.sites, d.o.Logger); err != nil {
			return err
		}
		defer d.relays.close()
	}
	if d.front, err = listenFront(d.plan, d.o); err != nil {
		return err
	}
	defer d.front.close()
	control, err := listenControl(d.o.Data)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx)) // sites still talk while they end
	defer unlink()
	if d.relays != nil {
		g.Go(func() error { return d.relays.run(linked) })
	}
	g.Go(func() error { return d.front.run(ctx) })
	g.Go(func() error { return d.serveControl(ctx, control) })
	if d.o.Warnings != nil {
		g.Go(func() error { return showWarnings(ctx, d.sites, d.o.Warnings) })
	}
	g.Go(func() error {
		defer unlink()
		defer d.removeEnvironment()
		defer d.endSites()
		for _, s := range d.sites {
			if err := s.start(); err != nil {
				return err
			}
		}
		if err := d.open(ctx, began); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// startTime bounds how long the sites may take to answer.
const startTime = 60 * time.Second

// open waits until both regions answer, makes the hub and the device if they are not there, and tells the world.
func (d *Dev) open(parent context.Context, began time.Time) error {
	ctx, cancel := context.WithTimeoutCause(parent, startTime, &tandem.Error{Op: "start", Kind: tandem.Timeout,
		Hint: "the log files in " + d.o.Data + " say more"})
	defer cancel()
	d.o.Progress("regions")
	for _, s := range d.sites {
		if err := s.waitReady(ctx); err != nil {
			if parent.Err() != nil {
				return nil
			}
			return err
		}
	}
	var err error
	d.client, err = client.New(client.Target{
		URLs: d.plan.regionURLs("ARM"), DataURLs: d.plan.regionURLs("HTTPS"), CA: d.plan.ca, Token: d.ids.Token,
		Subscription: d.ids.Subscription, ResourceGroup: Group, Tenant: d.ids.Tenant, Location: string(d.o.Regions[0]),
	})
	if err != nil {
		return err
	}
	d.o.Progress("hub")
	var ready Ready
	for { // a region that is ready may still be claiming pens
		if ready, err = d.furnish(ctx); err == nil {
			break
		}
		if parent.Err() != nil {
			return nil
		}
		if k := tandem.KindOf(err); !k.Retriable() && k != tandem.Conflict || ctx.Err() != nil {
			return fmt.Errorf("make the first hub: %w", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	d.front.setHub(d.client)
	if err := d.writeEnvironment(); err != nil {
		return err
	}
	ready.Took = time.Since(began)
	for _, s := range d.sites {
		ready.Sites = append(ready.Sites, s.info())
	}
	if d.o.Ready != nil {
		d.o.Ready(ready)
	}
	return nil
}

// Group is the resource group that the hub is made in.
const Group = "tandem-dev"

// furnish makes what is missing of group, hub and device, and fills in the environment.
func (d *Dev) furnish(ctx context.Context) (Ready, error) {
	if err := d.client.EnsureGroup(ctx); err != nil {
		return Ready{}, err
	}
	h, _, err := d.client.Hub(ctx, d.o.Hub)
	if tandem.KindOf(err) == tandem.NotFound && err != nil {
		h, err = d.client.PutHub(ctx, d.o.Hub, client.HubSpec{SKU: "S1", Location: string(d.o.Regions[0])})
	}
	if err != nil {
		return Ready{}, err
	}
	service, err := d.client.Service(ctx, d.o.Hub)
	if err != nil {
		return Ready{}, err
	}
	device, _, err := service.Device(ctx, d.o.Device)
	if tandem.KindOf(err) == tandem.NotFound && err != nil {
		device, err = service.CreateDevice(ctx, client.Device{DeviceID: d.o.Device, Status: "enabled"})
	}
	if err != nil {
		return Ready{}, err
	}
	keys, err := d.client.Keys(ctx, d.o.Hub)
	if err != nil || len(keys) == 0 {
		return Ready{}, errors.Join(err, errors.New("the hub has no keys"))
	}
	owner := keys[0]
	for _, key := range keys {
		if key.KeyName == "iothubowner" {
			owner = key
		}
	}
	d.envMu.Lock()
	defer d.envMu.Unlock()
	d.env = d.newEnvironment(owner, device.Key())
	return Ready{
		Hub: h.Name, Holder: string(tandem.ParseRegion(h.Location)), Environment: filepath.Join(d.o.Data, "env"),
		ARM: d.env.arm, HubString: d.env.hub, DeviceString: d.env.device, Notes: d.plan.notes,
	}, nil
}

// endSites stops the regions, then the witness, so that the regions can still hand over their pens.
func (d *Dev) endSites() {
	var regions sync.WaitGroup
	for _, s := range d.sites {
		if !s.spec.witness {
			regions.Go(func() { s.end(3 * time.Second) })
		}
	}
	regions.Wait()
	for _, s := range d.sites {
		s.end(time.Second)
	}
}

func (d *Dev) pidChanged() {
	d.envMu.Lock()
	written := d.env.arm != "" && !d.stopped
	d.envMu.Unlock()
	if written {
		if err := d.writeEnvironment(); err != nil {
			d.o.Logger.Warn("environment file not written", "error", err)
		}
	}
}

// ready asks a node's own readiness.
func ready(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := readyClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

var readyClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableKeepAlives: true}}

// witness is the third site's name.
const witness = region.Witness
