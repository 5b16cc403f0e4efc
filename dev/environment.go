package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tandem"
	"tandem/client"
)

// environment is what other programs are told.
type environment struct {
	arm, hub, device string
	lines            [][2]string // in order, without TANDEM_REGION_PIDS
}

// newEnvironment fills in what is known; values of parts that are not built stay empty.
func (d *Dev) newEnvironment(owner client.Key, deviceKey string) environment {
	p, ids := d.plan, d.ids
	host := "localhost"
	if p.ports.MQTT != 8883 { // device SDKs for MQTT take a port here (specs/clients.md §2)
		host = join("localhost", p.ports.MQTT)
	}
	e := environment{
		arm: "https://" + join("localhost", p.ports.ARM),
		hub: client.ConnectionString{HostName: "localhost", SharedAccessKeyName: owner.KeyName, SharedAccessKey: owner.PrimaryKey}.String(),
	}
	if deviceKey != "" {
		e.device = client.ConnectionString{HostName: host, DeviceID: d.o.Device, SharedAccessKey: deviceKey}.String()
	}
	bundle := d.writeBundle()
	e.lines = [][2]string{
		{"TANDEM_CA", p.ca}, {"TANDEM_ARM_URL", e.arm}, {"TANDEM_HTTPS_URL", "https://" + join("localhost", p.ports.HTTPS)},
		{"TANDEM_PORTAL_URL", ""},
		{"TANDEM_TENANT", ids.Tenant}, {"TANDEM_SUBSCRIPTION", ids.Subscription}, {"TANDEM_RESOURCE_GROUP", Group},
		{"TANDEM_LOCATION", string(d.o.Regions[0])}, {"TANDEM_PAIR_LOCATION", string(d.o.Regions[1])},
		{"TANDEM_CLIENT_ID", ""}, {"TANDEM_CLIENT_SECRET", ids.Token}, {"TANDEM_AAD_URL", ""}, {"TANDEM_AZ_AUTHORITY", ""},
		{"TANDEM_HUB_NAME", d.o.Hub}, {"TANDEM_HUB_CONNECTION_STRING", e.hub}, {"TANDEM_DEVICE_CONNECTION_STRING", e.device},
		{"TANDEM_EVENTHUB_CONNECTION_STRING", ""}, {"TANDEM_CONSUMER_GROUP", ""}, {"TANDEM_VAULT", ""},
		{"TANDEM_PROTECTED_RESOURCE_ID", ""}, {"TANDEM_CONCIERGE_URL", ""}, {"TANDEM_DPS_HOST", ""}, {"TANDEM_DPS_SCOPE", ""},
		{"TANDEM_DNS", ""}, {"IDENTITY_ENDPOINT", ""}, {"IDENTITY_HEADER", ""}, {"MSI_ENDPOINT", ""}, {"MSI_SECRET", ""},
		{"APPSETTING_WEBSITE_SITE_NAME", ""},
		{"NODE_EXTRA_CA_CERTS", p.ca}, {"SSL_CERT_FILE", bundle}, {"REQUESTS_CA_BUNDLE", bundle},
	}
	return e
}

// systemRoots are where systems keep their certificate bundle.
var systemRoots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"}

// writeBundle writes the system's roots and our own authority into one file, for clients that take only one.
func (d *Dev) writeBundle() string {
	file := filepath.Join(d.o.Data, "ca-bundle.pem")
	var bundle []byte
	for _, roots := range systemRoots {
		if text, err := os.ReadFile(roots); err == nil {
			bundle = append(text, '\n')
			break
		}
	}
	own, err := os.ReadFile(d.plan.ca)
	if err == nil {
		err = writePrivate(file, append(bundle, own...))
	}
	if err != nil {
		d.o.Logger.Warn("certificate bundle not written", "error", err)
		return d.plan.ca
	}
	return file
}

// writeEnvironment puts <data>/env in place whole.
func (d *Dev) writeEnvironment() error {
	d.envMu.Lock()
	defer d.envMu.Unlock()
	if d.stopped {
		return nil
	}
	var pids []string
	for _, s := range d.sites {
		if pid := s.pid(); pid != 0 {
			pids = append(pids, fmt.Sprintf("%s=%d", s.spec.name, pid))
		}
	}
	var text strings.Builder
	for _, line := range append(d.env.lines[:len(d.env.lines):len(d.env.lines)], [2]string{"TANDEM_REGION_PIDS", strings.Join(pids, ",")}) {
		fmt.Fprintf(&text, "%s='%s'\n", line[0], strings.ReplaceAll(line[1], "'", `'\''`))
	}
	if err := writePrivate(filepath.Join(d.o.Data, "env"), []byte(text.String())); err != nil {
		return &tandem.Error{Op: "write the environment file", Err: err}
	}
	return nil
}

func (d *Dev) removeEnvironment() {
	d.envMu.Lock()
	defer d.envMu.Unlock()
	d.stopped = true
	if err := os.Remove(filepath.Join(d.o.Data, "env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.o.Logger.Warn("environment file not removed", "error", err)
	}
}

// ReadEnvironment reads an environment file. Kind NotFound when there is none: nothing runs on that data.
func ReadEnvironment(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &tandem.Error{Op: "read the environment file", Kind: tandem.NotFound, Err: err, Hint: "`tandem dev` writes it when everything answers"}
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && len(value) >= 2 {
			values[key] = strings.ReplaceAll(value[1:len(value)-1], `'\''`, "'")
		}
	}
	return values, nil
}
