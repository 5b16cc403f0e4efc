package gateway_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"tandem"
	"tandem/gateway"
)

var (
	key    = []byte("sixteen byte key")
	other  = []byte("another byte key")
	expiry = time.Unix(1893456000, 0).UTC()
)

func parse(t *testing.T, s string) gateway.Token {
	t.Helper()
	token, err := gateway.ParseToken(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return token
}

func TestTokenInAnyOrderAndEncoding(t *testing.T) {
	made := gateway.MakeToken("h.example/devices/d 1", "", key, expiry)
	fields := strings.Split(strings.TrimPrefix(made, "SharedAccessSignature "), "&")
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		s := "SharedAccessSignature " + fields[order[0]] + "&" + fields[order[1]] + "&" + fields[order[2]]
		token := parse(t, s)
		if !token.SignedBy(key) || token.Host != "h.example" || token.Path != "devices/d 1" || token.Policy != "" || !token.Expiry.Equal(expiry) {
			t.Errorf("%s: got %+v", s, token)
		}
	}
}

// The signature is over sr as it travels, so each client's way of encoding has to hold.
func TestTokenIsVerifiedOverTheTextThatCame(t *testing.T) {
	for _, sr := range []string{"h.example/devices/d1", "h.example%2Fdevices%2Fd1", "h.example%2fdevices%2fd1", "H.EXAMPLE%2FDEVICES%2FD1",
		"h.example:8883%2Fdevices%2Fd1", "amqps%3A%2F%2Fh.example%2Fdevices%2Fd1", "h.example%2Fdevices%2Fd1%2Fapi-version%3D2016-11-14",
		"h.example/devices/d1/api-version=2016-11-14", "h.example/devices/d1/?api-version=2016-11-14", "h.example/devices/d1/", "h.example"} {
		token := parse(t, "SharedAccessSignature sr="+sr+"&sig="+signature(sr)+"&se=1893456000")
		if !token.SignedBy(key) || token.SignedBy(other) {
			t.Errorf("%s: signature not recognised", sr)
		}
		if token.Host != "h.example" || !token.Covers("devices/d1") || !token.Covers("devices/d1/modules/m") || sr != "h.example" && token.Covers("devices/d10") {
			t.Errorf("%s: host %q, path %q", sr, token.Host, token.Path)
		}
	}
}

// signature signs sr as it stands, with MakeToken's signature over it.
func signature(sr string) string {
	return base64.StdEncoding.EncodeToString(hmacOf(key, sr+"\n1893456000"))
}

func TestTokenKeys(t *testing.T) {
	token := parse(t, gateway.MakeToken("h", "", key, expiry))
	for name, c := range map[string]struct {
		keys [][]byte
		want bool
	}{
		"primary":         {[][]byte{key, other}, true},
		"secondary":       {[][]byte{other, key}, true},
		"neither":         {[][]byte{other, other}, false},
		"none":            {nil, false},
		"the same twice":  {[][]byte{key, key}, true},
		"empty, then key": {[][]byte{nil, key}, true},
	} {
		if token.SignedBy(c.keys...) != c.want {
			t.Errorf("%s: want %v", name, c.want)
		}
	}
	unsigned := parse(t, gateway.MakeToken("h", "", nil, expiry))
	if unsigned.SignedBy(nil, []byte{}) {
		t.Error("an empty key signed a token")
	}
}

func TestTokenExpiry(t *testing.T) {
	token := parse(t, gateway.MakeToken("h", "", key, expiry))
	if token.Expired(expiry.Add(-time.Nanosecond)) || !token.Expired(expiry) {
		t.Error("the token ends at another time than se")
	}
	far := parse(t, "SharedAccessSignature sr=h&sig="+base64.StdEncoding.EncodeToString(make([]byte, 32))+"&se=9223372036854775807")
	if far.Expired(expiry) || far.Expiry.Year() != 9999 {
		t.Errorf("a token of for ever ends %v", far.Expiry)
	}
}

func TestMalformedTokens(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, s := range []string{"", "SharedAccessSignature ", "Bearer x", "SharedAccessSignature sr=h&sig=" + good, "SharedAccessSignature sr=h&se=1",
		"SharedAccessSignature sig=" + good + "&se=1", "SharedAccessSignature sr=h&sig=AAAA&se=1", "SharedAccessSignature sr=h&sig=" + good + "&se=-1",
		"SharedAccessSignature sr=h&sig=" + good + "&se=1e9", "SharedAccessSignature sr=h&sr=i&sig=" + good + "&se=1",
		"SharedAccessSignature sr=h&sig=" + good + "&se=1&skn=%zz", "SharedAccessSignature sr=" + strings.Repeat("h", 5000) + "&sig=" + good + "&se=1",
		"SharedAccessSignature sr=h&sig=%&se=1", "SharedAccessSignature sr=h&sig=" + good + "AAAA&se=1"} {
		if _, err := gateway.ParseToken(s); !errors.Is(err, gateway.ErrTokenMalformed) || tandem.KindOf(err) != tandem.Unauthorized {
			t.Errorf("%.60q: got %v", s, err)
		}
	}
}

func TestPolicies(t *testing.T) {
	device := gateway.Policy{Name: "device", Keys: [2][]byte{other, key}, Rights: gateway.DeviceConnect}
	for _, c := range []struct {
		name, resource, skn string
		path                string
		wanted              gateway.Rights
		want                error
	}{
		{"whole hub", "h", "device", "devices/d1", gateway.DeviceConnect, nil},
		{"one device", "h/devices/d1", "device", "devices/d1", gateway.DeviceConnect, nil},
		{"another device", "h/devices/d2", "device", "devices/d1", gateway.DeviceConnect, gateway.ErrTokenResource},
		{"a device differing in case", "h/devices/D1", "device", "devices/d1", gateway.DeviceConnect, gateway.ErrTokenResource},
		{"another policy", "h", "service", "devices/d1", gateway.DeviceConnect, gateway.ErrTokenSignature},
		{"no policy", "h", "", "devices/d1", gateway.DeviceConnect, gateway.ErrTokenSignature},
	} {
		token := parse(t, gateway.MakeToken(c.resource, c.skn, key, expiry))
		if err := device.Check(&token, c.path, c.wanted); err != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	token := parse(t, gateway.MakeToken("h", "device", key, expiry))
	if err := device.Check(&token, "devices", gateway.RegistryRead); tandem.KindOf(err) != tandem.Forbidden {
		t.Errorf("a right that the policy lacks: %v", err)
	}
	// A device's own key proves which device it is, so tools that lower-case the resource are let in.
	own := parse(t, gateway.MakeToken("h/devices/dev1", "", key, expiry))
	if !own.Covers("devices/Dev1") {
		t.Error("a lower-cased resource was refused")
	}
}

func TestRights(t *testing.T) {
	all := "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect"
	r, err := gateway.ParseRights(all)
	if err != nil || r.String() != all || !r.May(gateway.ServiceConnect|gateway.RegistryRead) {
		t.Errorf("got %v, %v", r, err)
	}
	if _, err := gateway.ParseRights("RegistryRead, Everything"); tandem.KindOf(err) != tandem.Invalid {
		t.Errorf("got %v", err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(gateway.MakeToken("h.example/devices/d1", "", key, expiry))
	f.Add(gateway.MakeToken("h.example", "iothubowner", key, expiry))
	f.Add("SharedAccessSignature sr=a%2&sig=AAAA&se=1")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := gateway.ParseToken(s)
		if err != nil {
			if !errors.Is(err, gateway.ErrTokenMalformed) {
				t.Fatal(err)
			}
			return
		}
		token.Covers("devices/d1")
		if token.SignedBy(nil) || token.SignedBy(other) {
			t.Fatal("signed by a key that signed nothing")
		}
	})
}

// FuzzMadeTokens holds that what we make we accept, whatever the names.
func FuzzMadeTokens(f *testing.F) {
	f.Add("h.example/devices/a%2Fb+c", "device", []byte("k"))
	f.Fuzz(func(t *testing.T, resource, policy string, key []byte) {
		made := gateway.MakeToken(resource, policy, key, expiry)
		if resource == "" || len(key) == 0 || len(made) > 4096 {
			return
		}
		token, err := gateway.ParseToken(made)
		if err != nil || !token.SignedBy(key) || token.Policy != policy {
			t.Fatalf("%q: %v %+v", made, err, token)
		}
	})
}
