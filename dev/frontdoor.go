package dev

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
	"tandem/client"
)

// frontDoor plays DNS and traffic manager: it takes connections on 127.0.0.1 and ::1 and leads each to the region that
// has the default hub's pen, or to the other one when that is dark. A connection stays where it was led.
type frontDoor struct {
	plan   *plan
	hub    string
	logger *slog.Logger
	doors  []frontPort
	room   chan struct{}
	order  atomic.Pointer[[]*siteSpec] // whom to try, best first

	mu     sync.Mutex
	client *client.Client // nil until there is a hub
}

type frontPort struct {
	listener net.Listener
	port     int
}

const (
	// maxFront bounds the connections through the front door; each takes two descriptors.
	maxFront = 20000
	// healthEvery is how often the regions are asked: what a DNS answer with a life of under a second would be.
	healthEvery = 300 * time.Millisecond
)

func listenFront(p *plan, o Options) (*frontDoor, error) {
	f := &frontDoor{plan: p, hub: o.Hub, logger: o.Logger, room: make(chan struct{}, maxFront)}
	order := p.sites[:2:2]
	f.order.Store(&order)
	for _, port := range []int{p.ports.MQTT, p.ports.MQTTPlain, p.ports.HTTPS, p.ports.ARM} {
		for i, address := range front {
			if port == 0 {
				continue
			}
			l, err := net.Listen("tcp", join(address, port))
			if err != nil && i > 0 {
				continue // no IPv6 here
			}
			if err != nil {
				f.close()
				return nil, &tandem.Error{Op: "open the front door", Kind: tandem.Conflict, On: join(address, port), Err: err}
			}
			f.doors = append(f.doors, frontPort{l, port})
		}
	}
	return f, nil
}

func (f *frontDoor) close() {
	for _, d := range f.doors {
		_ = d.listener.Close()
	}
}

func (f *frontDoor) setHub(c *client.Client) {
	f.mu.Lock()
	f.client = c
	f.mu.Unlock()
}

func (f *frontDoor) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, f.close)()
	var g errgroup.Group
	g.Go(func() error {
		f.watch(ctx)
		return nil
	})
	for _, d := range f.doors {
		g.Go(func() error {
			for {
				conn, err := d.listener.Accept()
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				select {
				case f.room <- struct{}{}:
				default:
					_ = conn.Close()
					continue
				}
				g.Go(func() error {
					defer func() { <-f.room }()
					f.lead(ctx, conn, d.port)
					return nil
				})
			}
		})
	}
	return g.Wait()
}

// watch keeps the order of the regions: healthy ones first, among them the one with the pen.
func (f *frontDoor) watch(ctx context.Context) {
	sites := f.plan.sites[:2:2]
	for {
		pen := f.pen(ctx)
		var healthy [2]bool
		var asked sync.WaitGroup
		for i, s := range sites {
			asked.Go(func() {
				healthy[i] = ready(ctx, "http://"+join(s.address, s.config.Ports.Metrics)+"/readyz")
			})
		}
		asked.Wait()
		order := sites
		if f.score(sites[1], healthy[1], pen) > f.score(sites[0], healthy[0], pen) {
			order = []*siteSpec{sites[1], sites[0]}
		}
		if old := *f.order.Load(); old[0] != order[0] {
			f.logger.Info("front door leads elsewhere", "region", order[0].name)
		}
		f.order.Store(&order)
		select {
		case <-ctx.Done():
			return
		case <-time.After(healthEvery):
		}
	}
}

func (f *frontDoor) score(s *siteSpec, healthy bool, pen tandem.RegionName) int {
	n := 0
	if healthy {
		n += 2
	}
	if s.name == pen {
		n++
	}
	return n
}

// pen is the region that has the default hub's pen, as any region that answers sees it.
func (f *frontDoor) pen(ctx context.Context) tandem.RegionName {
	f.mu.Lock()
	c := f.client
	f.mu.Unlock()
	if c == nil {
		return f.plan.sites[0].name
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	h, _, err := c.Hub(ctx, f.hub)
	if err != nil {
		return (*f.order.Load())[0].name
	}
	return tandem.ParseRegion(h.Location)
}

// lead joins a connection with the best region that takes it.
func (f *frontDoor) lead(ctx context.Context, near net.Conn, port int) {
	defer near.Close()
	for _, s := range *f.order.Load() {
		far, err := net.DialTimeout("tcp", join(s.address, port), time.Second)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() {
			_ = near.Close()
			_ = far.Close()
		})
		var g errgroup.Group
		g.Go(func() error { return through(far, near) })
		g.Go(func() error { return through(near, far) })
		_ = g.Wait()
		stop()
		_ = far.Close()
		return
	}
}

// through copies until from ends, then ends to's half; on Linux the bytes stay in the kernel.
func through(to, from net.Conn) error {
	_, err := io.Copy(to, from)
	if t, ok := to.(*net.TCPConn); ok && err == nil {
		return t.CloseWrite()
	}
	_ = to.Close()
	_ = from.Close()
	return err
}
