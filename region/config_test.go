package region_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/region"
)

func TestSampleConfig(t *testing.T) {
	c, err := region.Load("testdata/region.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.LeaseTTL != 5*time.Second || c.Node != "westus2-0" || !filepath.IsAbs(c.Cert) || !filepath.IsAbs(c.File) {
		t.Errorf("lease %v, node %q, cert %q, file %q", c.LeaseTTL, c.Node, c.Cert, c.File)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var again region.Config
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if again.LeaseTTL != c.LeaseTTL || again.Directory.Endpoints[1] != c.Directory.Endpoints[1] || again.Ports != c.Ports {
		t.Errorf("written and read again: %+v", again)
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	c := region.Default()
	c.Region, c.Peer, c.LeaseTTL, c.FailoverLimits = "westus2", "westus2", time.Hour, "often"
	err := c.Validate()
	if tandem.KindOf(err) != tandem.Invalid {
		t.Fatalf("kind of %v", err)
	}
	for _, part := range []string{"own peer", "lease_ttl", "failover_limits", "directory.initial", "door_cert"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

func TestConfigRefusesUnknownNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(file, []byte(`{"regoin":"westus2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := region.Load(file); err == nil || !strings.Contains(err.Error(), "regoin") {
		t.Errorf("a misspelt name: %v", err)
	}
}
