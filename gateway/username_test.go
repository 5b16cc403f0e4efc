package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"tandem/gateway"
)

func hmacOf(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func TestUsernames(t *testing.T) {
	for _, c := range []struct {
		in   string
		want gateway.Username
	}{
		{"h/d1/?api-version=2021-04-12&DeviceClientType=node%2F1.18%20(x)", gateway.Username{Host: "h", Device: "d1", APIVersion: "2021-04-12", Agent: "node/1.18 (x)"}},
		{"h:8883/d1/?api-version=2021-04-12", gateway.Username{Host: "h:8883", Device: "d1", APIVersion: "2021-04-12"}},
		{"h/d1/api-version=2020-09-30", gateway.Username{Host: "h", Device: "d1", APIVersion: "2020-09-30"}},
		{"h/d1/api-version=2016-11-14/DeviceClientType=ml%20sdk", gateway.Username{Host: "h", Device: "d1", APIVersion: "2016-11-14", Agent: "ml sdk"}},
		{"h/d1/?api-version=2018-06-30/DeviceClientType=ml&model-id=dtmi%3Aa%3B1", gateway.Username{Host: "h", Device: "d1", APIVersion: "2018-06-30", Agent: "ml", ModelID: "dtmi:a;1"}},
		{"h/d1/m1/?api-version=2019-10-01", gateway.Username{Host: "h", Device: "d1", Module: "m1", APIVersion: "2019-10-01"}},
		{"h/d1/m1/api-version=2019-10-01", gateway.Username{Host: "h", Device: "d1", Module: "m1", APIVersion: "2019-10-01"}},
		{"h/d1?api-version=2018-06-30", gateway.Username{Host: "h", Device: "d1", APIVersion: "2018-06-30"}},
		{"h/d1?api-version=2018-06-30/DeviceClientType=x", gateway.Username{Host: "h", Device: "d1", APIVersion: "2018-06-30", Agent: "x"}},
		{"h/d1", gateway.Username{Host: "h", Device: "d1"}},
		{"h/d1/", gateway.Username{Host: "h", Device: "d1"}},
		{"h/d1/m1", gateway.Username{Host: "h", Device: "d1", Module: "m1"}},
		{"h/a%20#+?=$/?api-version=1", gateway.Username{Host: "h", Device: "a%20#+?=$", APIVersion: "1"}},
		{"h/d1/?api-version=1&auth-chain=leaf%3Bedge&unknown=x&&DeviceClientType", gateway.Username{Host: "h", Device: "d1", APIVersion: "1", AuthChain: "leaf;edge"}},
	} {
		got, err := gateway.ParseUsername(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s:\ngot  %+v %v\nwant %+v", c.in, got, err, c.want)
		}
	}
}

func TestUsernamesThatNameNobody(t *testing.T) {
	long := strings.Repeat("x", 129)
	for _, in := range []string{"", "h", "h/", "/d1", "h//", "h//?api-version=1", "h/" + long + "/?api-version=1", "h/d1/" + long + "/", strings.Repeat("h", 256) + "/d1"} {
		if got, err := gateway.ParseUsername(in); !errors.Is(err, gateway.ErrUsername) {
			t.Errorf("%.40q: got %+v, %v", in, got, err)
		}
	}
}

func TestHost(t *testing.T) {
	for in, want := range map[string]string{"H.Example": "h.example", "h:8883": "h", "127.0.0.1:1": "127.0.0.1", "[::1]:8883": "[::1]", "::1": "::1", "": "", ":": ":"} {
		if got := gateway.Host(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzUsername(f *testing.F) {
	f.Add("h/d1/?api-version=2021-04-12&DeviceClientType=node%2F1.18")
	f.Add("h/d1/api-version=2016-11-14/DeviceClientType=x")
	f.Add("h/d1?api-version=/?&/")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := gateway.ParseUsername(s)
		if err != nil {
			return
		}
		if u.Device == "" || strings.Contains(string(u.Device), "/") || strings.Contains(u.Module, "/") || len(u.Module) > 128 {
			t.Fatalf("%q: %+v", s, u)
		}
		if !strings.HasPrefix(s, u.Host+"/"+string(u.Device)) {
			t.Fatalf("%q: ids are not taken as they stand: %+v", s, u)
		}
	})
}
