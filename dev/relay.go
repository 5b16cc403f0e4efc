package dev

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tandem"
)

// relays carry everything that one site says to another, so that a link can be cut without root. A cut link behaves as a
// pulled cable: nothing arrives and nobody is told; after join the bytes go on where they stopped.
type relays struct {
	plan   *plan
	sites  []*site
	logger *slog.Logger
	list   []relay
	room   chan struct{} // bounds the connections

	mu    sync.Mutex
	cuts  []tandem.RegionName // sites without any link, and theLink; replaced, never changed
	wakes chan struct{}       // closed and made anew at every change
}

// A relay leads to one port of one site.
type relay struct {
	to       *siteSpec
	listener net.Listener
	target   string
	patient  bool // wait for a site that runs and does not listen yet
}

// maxRelayed bounds the connections between sites; a normal installation has a few dozen.
const maxRelayed = 1024

func listenRelays(p *plan, sites []*site, logger *slog.Logger) (*relays, error) {
	r := &relays{plan: p, sites: sites, logger: logger, room: make(chan struct{}, maxRelayed), wakes: make(chan struct{})}
	for i, s := range p.sites {
		ports := [][2]int{{peerPort, peerBehind}, {endpointPort, clientBehind}}
		if i == 0 {
			ports = append(ports, [2]int{leafPort, leafBehind})
		}
		for _, port := range ports {
			l, err := net.Listen("tcp", join(s.address, p.at(port[0])))
			if err != nil {
				r.close()
				return nil, &tandem.Error{Op: "relay between the sites", Kind: tandem.Conflict, Err: err}
			}
			r.list = append(r.list, relay{to: s, listener: l, target: join(s.address, p.at(port[1])), patient: port[0] == leafPort})
		}
	}
	return r, nil
}

func (r *relays) close() {
	for _, one := range r.list {
		_ = one.listener.Close()
	}
}

func (r *relays) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, r.close)()
	var g errgroup.Group
	for _, one := range r.list {
		g.Go(func() error {
			for {
				conn, err := one.listener.Accept()
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // out of files: others will end
					continue
				}
				select {
				case r.room <- struct{}{}:
				default:
					_ = conn.Close()
					continue
				}
				g.Go(func() error {
					defer func() { <-r.room }()
					r.carry(ctx, one, conn)
					return nil
				})
			}
		})
	}
	return g.Wait()
}

// carry joins one connection with the site it is for, and stands still while the link is cut.
func (r *relays) carry(ctx context.Context, one relay, near net.Conn) {
	defer near.Close()
	defer context.AfterFunc(ctx, func() { _ = near.Close() })()
	// Whose connection it is takes a while to see, and matters only once something is cut.
	from := sync.OnceValue(func() tandem.RegionName { return r.siteOf(near) })
	if !r.passable(ctx, from, one.to.name) {
		return
	}
	far := r.dial(ctx, one)
	if far == nil {
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { _ = far.Close() })()
	var g errgroup.Group
	g.Go(func() error { return r.copy(ctx, far, near, from, one.to.name) })
	g.Go(func() error { return r.copy(ctx, near, far, from, one.to.name) })
	_ = g.Wait()
}

// dialPatience is how long the link of the logs waits for a site that runs and does not listen yet: a refusal would cost
// it a second until its next attempt. The directory is refused at once: it tries again sooner than it gives up waiting.
const dialPatience = 3 * time.Second

// dial reaches the site behind a relay; nil when it does not run, or does not listen in time.
func (r *relays) dial(ctx context.Context, one relay) net.Conn {
	for began := time.Now(); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		far, err := net.DialTimeout("tcp", one.target, 2*time.Second)
		if err == nil {
			return far
		}
		if !one.patient || time.Since(began) > dialPatience || !r.runs(one.to.name) {
			return nil
		}
	}
	return nil
}

func (r *relays) runs(name tandem.RegionName) bool {
	for _, s := range r.sites {
		if s.spec.name == name {
			return s.pid() != 0
		}
	}
	return false
}

func (r *relays) copy(ctx context.Context, to, from net.Conn, a func() tandem.RegionName, b tandem.RegionName) error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !r.passable(ctx, a, b) {
			return ctx.Err()
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.Close()
				return err
			}
		}
		if err != nil {
			if t, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				return t.CloseWrite()
			}
			_ = to.Close()
			return err
		}
	}
}

// passable waits until the link between two sites is whole; false when ctx ended first.
func (r *relays) passable(ctx context.Context, from func() tandem.RegionName, to tandem.RegionName) bool {
	for {
		r.mu.Lock()
		cuts, wakes := r.cuts, r.wakes
		r.mu.Unlock()
		if len(cuts) == 0 || !severed(cuts, from(), to) {
			return ctx.Err() == nil
		}
		select {
		case <-wakes:
		case <-ctx.Done():
			return false
		}
	}
}

// severed reports whether cuts, of sites and of "link", lie between two sites. An unknown site ("") is no region.
func severed(cuts []tandem.RegionName, a, b tandem.RegionName) bool {
	regions := a != "" && a != b && a != witness && b != witness
	return slices.Contains(cuts, a) || slices.Contains(cuts, b) || regions && slices.Contains(cuts, theLink)
}

// theLink is what cut and join call the connection between the two regions.
const theLink = "link"

// siteOf tells whose process made a connection; empty when that cannot be seen (it is then cut only with its target).
func (r *relays) siteOf(conn net.Conn) tandem.RegionName {
	address, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	groups := map[int]tandem.RegionName{}
	for _, s := range r.sites {
		if pid := s.pid(); pid != 0 {
			groups[pid] = s.spec.name
		}
	}
	group := groupOf(address.AddrPort(), func(g int) bool { return groups[g] != "" })
	return groups[group]
}

// sever cuts or joins a site from both others, or the link between the two regions.
func (r *relays) sever(name tandem.RegionName, cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cuts := slices.DeleteFunc(slices.Clone(r.cuts), func(n tandem.RegionName) bool { return n == name })
	if cut {
		cuts = append(cuts, name)
	}
	r.cuts = cuts
	close(r.wakes)
	r.wakes = make(chan struct{})
	r.logger.Info("link changed", "site", name, "cut", cut)
}
