package region

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"tandem"
)

// Config is everything that one site's process is told: a region's node, its directory member, or the witness. Make one
// with Default and Load; Validate says whether it can be run. Durations are written as in Go ("3s").
type Config struct {
	// Installation names the directory's prefix and the trust of all three sites; it never changes.
	Installation string `json:"installation"`
	// Region is this site, Peer the region it is paired with. The witness has the name "witness" and no peer.
	Region tandem.RegionName `json:"region"`
	Peer   tandem.RegionName `json:"peer,omitempty"`
	// Node is this process within its region. Default: "<region>-0".
	Node tandem.NodeName `json:"node"`
	// DataDir holds everything this node keeps. One process at a time.
	DataDir string `json:"data_dir"`
	// Listen is the address that all doors of Ports are bound to, "127.0.1.1"; empty means every address.
	Listen string `json:"listen"`
	Ports  Ports  `json:"ports"`

	Leaf      Leaf      `json:"leaf"`
	Directory Directory `json:"directory"`

	// CA, Cert and Key are this site's certificate for its talk with the other sites, and who signs theirs. PEM files.
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
	// DoorCert and DoorKey are what devices and operators see. PEM files.
	DoorCert string `json:"door_cert"`
	DoorKey  string `json:"door_key"`

	// Domain is what hubs are named under: "<hub>.<domain>".
	Domain string `json:"domain"`
	// DefaultHub is the hub that "localhost" and the plain addresses mean; may be empty.
	DefaultHub tandem.HubName `json:"default_hub,omitempty"`
	// AdminTokenFile holds the bearer token that may do everything, as one line.
	AdminTokenFile string `json:"admin_token_file"`
	Subscription   string `json:"subscription"`
	Tenant         string `json:"tenant"`

	// LeaseTTL is how long a node that fell silent keeps its pens (design: 3 s). 500ms to 1m.
	LeaseTTL time.Duration `json:"-"`
	// FailoverLimits is "azure" (2 + 2 a day, an hour apart) or "off".
	FailoverLimits string `json:"failover_limits"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `json:"log_level"`

	// File is where the configuration was read from, as an absolute path; empty when it came from elsewhere. A node hands
	// it to its directory process.
	File string `json:"-"`
}

// Ports are the doors of a node; 0 leaves a door closed.
type Ports struct {
	MQTT      int `json:"mqtt"`       // MQTT over TLS
	MQTTPlain int `json:"mqtt_plain"` // MQTT without TLS: for measuring on one machine only
	HTTPS     int `json:"https"`      // device and service REST
	ARM       int `json:"arm"`        // management
	Metrics   int `json:"metrics"`    // /metrics, /healthz, /readyz; plain HTTP
}

// Leaf is the link between the two regions' logs. One region listens, the other dials; both are "address:port".
type Leaf struct {
	Listen string `json:"listen,omitempty"`
	Dial   string `json:"dial,omitempty"`
}

// Directory is this site's directory member and how its clients find all three.
type Directory struct {
	// Name is the member's name; it is a key of Initial.
	Name string `json:"name"`
	// PeerListen is where other members reach this one ("address:port"), PeerAdvertise the https URL they use, which
	// may lead through something else.
	PeerListen    string `json:"peer_listen"`
	PeerAdvertise string `json:"peer_advertise"`
	// ClientListen is where nodes reach this member ("address:port").
	ClientListen string `json:"client_listen"`
	// Initial are all members: name to peer URL. It is read when the member is first started.
	Initial map[string]string `json:"initial"`
	// Endpoints are the https URLs of all members' client side, this site's own first.
	Endpoints []string `json:"endpoints"`
}

// Default is a node with the standard ports and the limits of Azure, and nothing that names a place.
func Default() Config {
	return Config{
		Installation: "tandem", DataDir: "data", Domain: "tandem.localhost", LeaseTTL: 3 * time.Second,
		Ports:          Ports{MQTT: 8883, HTTPS: 443, ARM: 8443, Metrics: 9090},
		FailoverLimits: "azure", LogLevel: "info",
	}
}

// onDisk is Config as a file has it.
type onDisk struct {
	*plainConfig
	LeaseTTL string `json:"lease_ttl"`
}

type plainConfig Config

// Load reads a JSON file over Default. Names it does not know are an error, so that a typing error is not a silence. Relative
// file names in it are taken from the file's own directory. The result is not yet validated: flags may change it.
func Load(file string) (Config, error) {
	c := Default()
	text, err := os.ReadFile(file)
	if err != nil {
		kind := tandem.Internal
		if errors.Is(err, fs.ErrNotExist) {
			kind = tandem.NotFound
		}
		return c, &tandem.Error{Op: "read the configuration", Kind: kind, Err: err}
	}
	if err := c.UnmarshalJSON(text); err != nil {
		return c, &tandem.Error{Op: "read the configuration", Kind: tandem.Invalid, On: file, Err: err}
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return c, &tandem.Error{Op: "read the configuration", On: file, Err: err}
	}
	c.File = absolute
	for _, name := range []*string{&c.DataDir, &c.CA, &c.Cert, &c.Key, &c.DoorCert, &c.DoorKey, &c.AdminTokenFile} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(absolute), *name)
		}
	}
	return c, nil
}

// UnmarshalJSON sets what the text names and leaves the rest.
func (c *Config) UnmarshalJSON(text []byte) error {
	disk := onDisk{plainConfig: (*plainConfig)(c), LeaseTTL: c.LeaseTTL.String()}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&disk); err != nil {
		return err
	}
	ttl, err := time.ParseDuration(disk.LeaseTTL)
	if err != nil {
		return fmt.Errorf("lease_ttl: %w", err)
	}
	c.LeaseTTL = ttl
	return nil
}

// MarshalJSON writes what Load reads.
func (c Config) MarshalJSON() ([]byte, error) {
	return json.Marshal(onDisk{plainConfig: (*plainConfig)(&c), LeaseTTL: c.LeaseTTL.String()})
}

// Witness is the name of the third site.
const Witness tandem.RegionName = "witness"

var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidateDirectory checks what a directory member needs, which is all that a witness is.
func (c *Config) ValidateDirectory() error {
	var wrong []string
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	need(nameRule.MatchString(c.Installation), "installation %q: letters, digits and hyphens", c.Installation)
	need(nameRule.MatchString(string(c.Region)), "region %q: lower-case letters, digits and hyphens", c.Region)
	need(c.DataDir != "", "data_dir is empty")
	need(c.CA != "" && c.Cert != "" && c.Key != "", "ca, cert and key have to name the site's certificate")
	need(c.Directory.Initial[c.Directory.Name] != "", "directory.initial does not list %q", c.Directory.Name)
	need(len(c.Directory.Initial) == 1 || len(c.Directory.Initial) == 3, "directory.initial has to list one or three members")
	need(hostPort(c.Directory.PeerListen), "directory.peer_listen %q is not address:port", c.Directory.PeerListen)
	need(hostPort(c.Directory.ClientListen), "directory.client_listen %q is not address:port", c.Directory.ClientListen)
	need(strings.HasPrefix(c.Directory.PeerAdvertise, "https://"), "directory.peer_advertise %q is not an https URL",
		c.Directory.PeerAdvertise)
	var level slog.Level
	need(level.UnmarshalText([]byte(c.LogLevel)) == nil, "log_level %q is not debug, info, warn or error", c.LogLevel)
	return invalid(wrong)
}

// Validate checks a region's node and sets Node if it is empty. The error lists everything that is wrong, not only the
// first; it is of kind Invalid.
func (c *Config) Validate() error {
	if c.Node == "" {
		c.Node = tandem.NodeName(c.Region + "-0")
	}
	var wrong []string
	if err := c.ValidateDirectory(); err != nil {
		wrong = append(wrong, errors.Unwrap(err).Error())
	}
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	need(c.Region != Witness, "the name %q is taken by the third site", Witness)
	need(nameRule.MatchString(string(c.Peer)), "peer %q: lower-case letters, digits and hyphens", c.Peer)
	need(c.Peer != c.Region, "a region cannot be its own peer")
	need(c.Listen == "" || net.ParseIP(c.Listen) != nil, "listen %q is not an IP address", c.Listen)
	need(c.DoorCert != "" && c.DoorKey != "", "door_cert and door_key have to name the certificate that clients see")
	need(c.Domain != "", "domain is empty")
	need(c.AdminTokenFile != "", "admin_token_file is empty")
	need(c.Subscription != "" && c.Tenant != "", "subscription and tenant are empty")
	need(len(c.Directory.Endpoints) > 0, "directory.endpoints is empty")
	need((c.Leaf.Listen == "") != (c.Leaf.Dial == ""), "leaf: one of listen and dial")
	need(hostPort(c.Leaf.Listen+c.Leaf.Dial), "leaf: %q is not address:port", c.Leaf.Listen+c.Leaf.Dial)
	need(c.LeaseTTL >= 500*time.Millisecond && c.LeaseTTL <= time.Minute, "lease_ttl %v is not within 500ms and 1m", c.LeaseTTL)
	need(c.FailoverLimits == "azure" || c.FailoverLimits == "off", "failover_limits %q is not azure or off", c.FailoverLimits)
	seen := map[int]bool{}
	for _, port := range []int{c.Ports.MQTT, c.Ports.MQTTPlain, c.Ports.HTTPS, c.Ports.ARM, c.Ports.Metrics} {
		need(port >= 0 && port <= 65535, "port %d does not exist", port)
		need(port == 0 || !seen[port], "port %d is named twice", port)
		seen[port] = true
	}
	need(c.Ports.ARM != 0, "ports.arm: the management door cannot be closed")
	return invalid(wrong)
}

func invalid(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return &tandem.Error{Op: "check the configuration", Kind: tandem.Invalid, Err: errors.New(strings.Join(wrong, "; "))}
}

func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n > 0 && n < 65536
}

// Level is LogLevel as slog has it; info when it is not valid.
func (c *Config) Level() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(c.LogLevel)) != nil {
		return slog.LevelInfo
	}
	return level
}
