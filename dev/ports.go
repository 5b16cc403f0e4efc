package dev

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"

	"tandem"
)

// front are the addresses of the front door.
var front = []string{"127.0.0.1", "::1"}

// A need is one port that has to be bound somewhere, and who misses it.
type need struct {
	port    int
	what    string // "MQTT over TLS"
	misses  string // "device SDKs over MQTT cannot connect"
	without func() // makes do without; nil means that nothing works without
}

// probe binds every port once and lets it go. What cannot be bound and can be missed is closed, with a note; else the
// error says whose the port is and what helps.
func (p *plan) probe() error {
	for _, s := range p.sites {
		for _, port := range []int{p.at(peerPort), p.at(endpointPort), p.at(leafPort)} {
			if err := p.check(s.address, need{port: port, what: "the talk between sites"}); err != nil {
				return err
			}
		}
	}
	needs := []need{
		{port: p.ports.MQTT, what: "MQTT over TLS"},
		{port: p.ports.ARM, what: "management"},
		{port: p.ports.Metrics, what: "metrics and health"},
		{port: p.ports.MQTTPlain, what: "MQTT without TLS", misses: "only measuring without TLS is not possible",
			without: func() { p.ports.MQTTPlain = 0 }},
		{port: p.ports.HTTPS, what: "HTTPS", misses: "Azure's SDKs for services and devices over HTTPS, which know no other port, cannot connect",
			without: func() { p.ports.HTTPS = p.at(httpsInstead) }},
	}
	for _, n := range needs {
		for _, address := range p.listens(n.port) {
			if n.port == 0 {
				break
			}
			if err := p.check(address, n); err != nil {
				return err
			}
		}
	}
	if p.ports.HTTPS != p.at(httpsInstead) {
		return nil
	}
	for _, address := range p.listens(p.ports.HTTPS) {
		if err := p.check(address, need{port: p.ports.HTTPS, what: "HTTPS"}); err != nil {
			return err
		}
	}
	return nil
}

// httpsInstead is used by our own commands where 443 may not be bound.
const httpsInstead = 10443

// listens are the addresses on which a door's port is bound.
func (p *plan) listens(port int) []string {
	list := []string{p.sites[0].address, p.sites[1].address}
	if port != p.ports.Metrics {
		list = append(list, front[0])
		if hasIPv6() {
			list = append(list, front[1])
		}
	}
	return list
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

func (p *plan) check(address string, n need) error {
	l, err := net.Listen("tcp", join(address, n.port))
	if err == nil {
		return l.Close()
	}
	why, help, kind := p.explain(address, n, err)
	if n.without != nil {
		n.without()
		note := fmt.Sprintf("%s: %s; so %s. %s", join(address, n.port), why, n.misses, help)
		if len(p.notes) == 0 || !strings.Contains(p.notes[len(p.notes)-1], n.misses) {
			p.notes = append(p.notes, note)
		}
		return nil
	}
	return &tandem.Error{Op: "listen for " + n.what, Kind: kind, On: join(address, n.port), Err: errors.New(why), Hint: help}
}

// explain says in words why an address cannot be bound, and the one command that helps.
func (p *plan) explain(address string, n need, err error) (why, help string, kind tandem.Kind) {
	offset := fmt.Sprintf("tandem dev --data %s-2 --port-offset %d", p.o.Data, p.o.PortOffset+20000)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		owner := ownerOf(address, n.port)
		if owner == "" {
			owner = "a program of another user"
		}
		return "the port is taken by " + owner, "end it, or use other ports: " + offset, tandem.Conflict
	case errors.Is(err, syscall.EACCES):
		help = "let everybody use it: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
		if runtime.GOOS != "linux" {
			help = "start with sudo, or use other ports: " + offset
		}
		return "ports below 1024 are reserved for root", help, tandem.Forbidden
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have the address", fmt.Sprintf("add it: sudo ifconfig lo0 alias %s", address), tandem.Unavailable
	}
	return err.Error(), "try other ports: " + offset, tandem.Unavailable
}
