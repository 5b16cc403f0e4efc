package dev

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"tandem"
	"tandem/region"
)

// installation is what stays the same when dev is started again on the same data. It is kept in <data>/dev.json.
type installation struct {
	Name         string
	Subscription string
	Tenant       string
	Token        string
	Regions      []tandem.RegionName
	Addresses    []string
	PortOffset   int
	Domain       string
}

// openInstallation reads <data>/dev.json, or makes it. The directory's members know each other by address, so regions,
// addresses and ports cannot change once there is data.
func openInstallation(o Options, _ time.Time) (installation, error) {
	wanted := installation{
		Name: "dev", Subscription: uuid(), Tenant: uuid(), Token: secret(32),
		Regions: o.Regions, Addresses: o.Addresses, PortOffset: o.PortOffset, Domain: o.Domain,
	}
	file := filepath.Join(o.Data, "dev.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = json.MarshalIndent(wanted, "", "  ")
		if err == nil {
			err = writePrivate(file, append(text, '\n'))
		}
		if err != nil {
			return wanted, &tandem.Error{Op: "start", Err: err}
		}
		return wanted, nil
	}
	var kept installation
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		return kept, &tandem.Error{Op: "read the data directory", Kind: tandem.Damaged, On: file, Err: err}
	}
	if !slices.Equal(kept.Regions, o.Regions) || !slices.Equal(kept.Addresses, o.Addresses) || kept.PortOffset != o.PortOffset ||
		kept.Domain != o.Domain {
		return kept, &tandem.Error{Op: "start", Kind: tandem.Precondition, On: o.Data,
			Err: fmt.Errorf("its data was made with --regions %s,%s --addresses %s,%s,%s --port-offset %d --domain %s",
				kept.Regions[0], kept.Regions[1], kept.Addresses[0], kept.Addresses[1], kept.Addresses[2], kept.PortOffset, kept.Domain),
			Hint: "use these, or another --data"}
	}
	return kept, nil
}

// Remembered returns the options with which the data directory was made, over o; o itself when there is no data yet.
// Flags that a user gave go on top, and Run then says what cannot change.
func Remembered(o Options) Options {
	text, err := os.ReadFile(filepath.Join(o.Data, "dev.json"))
	var kept installation
	if err == nil && json.Unmarshal(text, &kept) == nil && len(kept.Regions) == 2 && len(kept.Addresses) == 3 {
		o.Regions, o.Addresses, o.PortOffset, o.Domain = kept.Regions, kept.Addresses, kept.PortOffset, kept.Domain
	}
	return o
}

func secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// The ports between sites. Others use the first; with relays the site itself listens on the second, behind the relay.
// So a directory member's address stays the same with and without relays.
const (
	peerPort, peerBehind       = 2380, 12380
	endpointPort, clientBehind = 2379, 12379
	leafPort, leafBehind       = 7422, 17422
)

// siteSpec is one site as planned.
type siteSpec struct {
	name    tandem.RegionName
	address string
	dir     string
	witness bool
	config  region.Config
}

// plan is who listens where. It is computed from the options; probe then adapts it to this machine.
type plan struct {
	o     Options
	ids   installation
	ports region.Ports
	sites []*siteSpec
	ca    string
	notes []string
}

func newPlan(o Options, ids installation) *plan {
	at := func(port int) int { return port + o.PortOffset }
	p := &plan{o: o, ids: ids, ca: filepath.Join(o.Data, "certificates", "ca.pem"),
		ports: region.Ports{MQTT: at(8883), MQTTPlain: at(1883), HTTPS: at(443), ARM: at(8443), Metrics: at(9090)}}
	for i, address := range o.Addresses {
		s := &siteSpec{name: witness, address: address, witness: i == 2}
		if i < 2 {
			s.name = o.Regions[i]
		}
		s.dir = filepath.Join(o.Data, string(s.name))
		p.sites = append(p.sites, s)
	}
	return p
}

func (p *plan) at(port int) int { return port + p.o.PortOffset }

// own is the port a site listens on itself, where others use public.
func (p *plan) own(public, behind int) int {
	if p.o.NoRelays {
		return p.at(public)
	}
	return p.at(behind)
}

// config is what the site's process is told.
func (p *plan) config(i int) region.Config {
	s, c := p.sites[i], region.Default()
	c.Installation, c.Region, c.DataDir, c.Listen, c.Ports = p.ids.Name, s.name, filepath.Join(s.dir, "data"), s.address, p.ports
	c.Node = tandem.NodeName(s.name + "-0")
	c.Directory = region.Directory{
		Name: string(s.name), PeerListen: join(s.address, p.own(peerPort, peerBehind)), PeerAdvertise: "https://" + join(s.address, p.at(peerPort)),
		ClientListen: join(s.address, p.own(endpointPort, clientBehind)), Initial: map[string]string{},
		Endpoints: []string{"https://" + join(s.address, p.own(endpointPort, clientBehind))},
	}
	for _, other := range p.sites {
		c.Directory.Initial[string(other.name)] = "https://" + join(other.address, p.at(peerPort))
		if other != s {
			c.Directory.Endpoints = append(c.Directory.Endpoints, "https://"+join(other.address, p.at(endpointPort)))
		}
	}
	certificates := filepath.Dir(p.ca)
	c.CA = p.ca
	c.Cert, c.Key = filepath.Join(certificates, "site-"+string(s.name)+".pem"), filepath.Join(certificates, "site-"+string(s.name)+".key")
	c.Subscription, c.Tenant, c.Domain = p.ids.Subscription, p.ids.Tenant, p.o.Domain
	c.LeaseTTL, c.FailoverLimits, c.LogLevel = p.o.LeaseTTL, p.o.FailoverLimits, p.o.LogLevel
	if s.witness {
		c.Ports = region.Ports{}
		return c
	}
	c.Peer = p.sites[1-i].name
	c.DefaultHub = tandem.HubName(p.o.Hub)
	c.DoorCert, c.DoorKey = filepath.Join(certificates, "door.pem"), filepath.Join(certificates, "door.key")
	c.AdminTokenFile = filepath.Join(p.o.Data, "admin-token")
	if i == 0 {
		c.Leaf.Listen = join(s.address, p.own(leafPort, leafBehind))
	} else {
		c.Leaf.Dial = join(p.sites[0].address, p.at(leafPort))
	}
	return c
}

func join(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// write makes certificates, the token file and one configuration file per site.
func (p *plan) write(now time.Time) error {
	authority, err := region.OpenAuthority(filepath.Dir(p.ca), p.ids.Name, now)
	if err != nil {
		return err
	}
	door := []string{"localhost", "127.0.0.1", "::1", p.o.Domain, "*." + p.o.Domain, p.o.Hub + "." + p.o.Domain}
	for i, s := range p.sites {
		door = append(door, s.address)
		if _, _, err := authority.Site(string(s.name), []string{string(s.name), s.address, "localhost", "127.0.0.1", "::1"}, now); err != nil {
			return err
		}
		s.config = p.config(i)
		text, err := json.MarshalIndent(s.config, "", "  ")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return &tandem.Error{Op: "start", Err: err}
		}
		if err := writePrivate(filepath.Join(s.dir, "config.json"), append(text, '\n')); err != nil {
			return &tandem.Error{Op: "start", Err: err}
		}
	}
	if _, _, err := authority.Door(door, now); err != nil {
		return err
	}
	return writePrivate(filepath.Join(p.o.Data, "admin-token"), []byte(p.ids.Token+"\n"))
}

// port is the port of a door by the name of its field in region.Ports.
func (p *plan) port(door string) int {
	return map[string]int{"MQTT": p.ports.MQTT, "MQTTPlain": p.ports.MQTTPlain, "HTTPS": p.ports.HTTPS, "ARM": p.ports.ARM}[door]
}

// regionURLs are the regions' own addresses of an https door.
func (p *plan) regionURLs(door string) []string {
	var urls []string
	for _, s := range p.sites {
		if !s.witness {
			urls = append(urls, "https://"+join(s.address, p.port(door)))
		}
	}
	return urls
}

// writePrivate puts a file in place whole, mode 0600.
func writePrivate(file string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
