package mqtt_test

import (
	"testing"
	"time"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/mqtt/packet"
	"tandem/hub"
)

func TestConnack(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	token := func(resource, policy string, key []byte, expiry time.Time) []byte {
		return []byte(gateway.MakeToken(resource, policy, key, expiry))
	}
	for _, c := range []struct {
		name   string
		change func(*packet.Connect, *fakeHub)
		want   packet.ReturnCode
	}{
		{"own key", func(c *packet.Connect, h *fakeHub) {}, packet.Accepted},
		{"clean session", func(c *packet.Connect, h *fakeHub) { c.CleanSession = true }, packet.Accepted},
		{"user name without ?", func(c *packet.Connect, h *fakeHub) { c.Username = []byte("fab.example/d1/api-version=2020-09-30") }, packet.Accepted},
		{"token of the whole hub", func(c *packet.Connect, h *fakeHub) { c.Password = token("fab.example", "", deviceKey, hour) }, packet.Accepted},
		{"with ports", func(c *packet.Connect, h *fakeHub) {
			c.Username, c.Password = []byte("fab.example:18883/d1/"), token("fab.example:18883/devices/d1", "", deviceKey, hour)
		}, packet.Accepted},
		{"token under another name of the hub", func(c *packet.Connect, h *fakeHub) { c.Username = []byte("LOCALHOST/d1/") }, packet.Accepted},
		{"a policy that may", func(c *packet.Connect, h *fakeHub) {
			c.Password = token("fab.example/devices/d1", "device", policyKey, hour)
		}, packet.Accepted},
		{"a copy that has the old key", func(c *packet.Connect, h *fakeHub) {
			h.stale["d1"] = hub.Device{ID: "d1", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: policyKey}}
		}, packet.Accepted},
		{"secondary key", func(c *packet.Connect, h *fakeHub) {
			h.devices["d1"] = hub.Device{ID: "d1", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: policyKey, SecondaryKey: deviceKey}}
		}, packet.Accepted},

		{"a policy that may not", func(c *packet.Connect, h *fakeHub) { c.Password = token("fab.example", "service", policyKey, hour) }, packet.RefusedNotAuthorized},
		{"no such policy", func(c *packet.Connect, h *fakeHub) { c.Password = token("fab.example", "root", policyKey, hour) }, packet.RefusedNotAuthorized},
		{"another key", func(c *packet.Connect, h *fakeHub) { c.Password = token("fab.example/devices/d1", "", policyKey, hour) }, packet.RefusedNotAuthorized},
		{"another device's resource", func(c *packet.Connect, h *fakeHub) { c.Password = token("fab.example/devices/d2", "", deviceKey, hour) }, packet.RefusedNotAuthorized},
		{"another hub's token", func(c *packet.Connect, h *fakeHub) {
			c.Password = token("other.example/devices/d1", "", deviceKey, hour)
		}, packet.RefusedNotAuthorized},
		{"an expired token", func(c *packet.Connect, h *fakeHub) {
			c.Password = token("fab.example/devices/d1", "", deviceKey, time.Now().Add(-time.Second))
		}, packet.RefusedNotAuthorized},
		{"no password", func(c *packet.Connect, h *fakeHub) { c.HasPassword = false }, packet.RefusedNotAuthorized},
		{"no user name", func(c *packet.Connect, h *fakeHub) { c.HasUsername, c.HasPassword = false, false }, packet.RefusedNotAuthorized},
		{"an unknown device", func(c *packet.Connect, h *fakeHub) { delete(h.devices, "d1") }, packet.RefusedNotAuthorized},
		{"a device of certificates", func(c *packet.Connect, h *fakeHub) {
			h.devices["d1"] = hub.Device{ID: "d1", Status: hub.Enabled, Auth: hub.Auth{Type: hub.AuthSelfSigned}}
		}, packet.RefusedNotAuthorized},
		{"a disabled device", func(c *packet.Connect, h *fakeHub) {
			h.devices["d1"] = hub.Device{ID: "d1", Status: hub.Disabled, Auth: hub.Auth{Type: hub.AuthSAS, PrimaryKey: deviceKey}}
		}, packet.RefusedNotAuthorized},
		{"an unknown hub", func(c *packet.Connect, h *fakeHub) { c.Username = []byte("other.example/d1/") }, packet.RefusedNotAuthorized},
		{"a module", func(c *packet.Connect, h *fakeHub) {
			c.Username, c.ClientID = []byte("fab.example/d1/m1/?api-version=1"), []byte("d1/m1")
		}, packet.RefusedNotAuthorized},
		{"a will to another topic", func(c *packet.Connect, h *fakeHub) {
			c.HasWill, c.WillTopic = true, []byte("devices/d2/messages/events/")
		}, packet.RefusedNotAuthorized},
		{"another client id", func(c *packet.Connect, h *fakeHub) { c.ClientID = []byte("d2") }, packet.RefusedIdentifier},
		{"no client id", func(c *packet.Connect, h *fakeHub) { c.ClientID, c.CleanSession = nil, true }, packet.RefusedIdentifier},

		{"a hub that moves", func(c *packet.Connect, h *fakeHub) { c.Username = []byte("moving.example/d1/") }, packet.RefusedUnavailable},
		{"no holder", func(c *packet.Connect, h *fakeHub) { h.connect = hub.ErrMoving }, packet.RefusedUnavailable},
		{"throttled", func(c *packet.Connect, h *fakeHub) { h.connect = &tandem.Error{Kind: tandem.Throttled} }, packet.RefusedUnavailable},
		{"our own fault", func(c *packet.Connect, h *fakeHub) { h.connect = &tandem.Error{Kind: tandem.Internal} }, packet.RefusedUnavailable},
		{"disabled meanwhile", func(c *packet.Connect, h *fakeHub) { h.connect = hub.ErrDeviceDisabled }, packet.RefusedNotAuthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHub(t)
			connect := hello()
			c.change(&connect, h)
			client := dial(t, listen(t, newServer(t, h, nil)))
			client.send(packet.AppendConnect(nil, &connect))
			present, code, err := packet.ParseConnack(client.next(packet.CONNACK))
			if err != nil || code != c.want || present {
				t.Fatalf("got %d, session present %v, %v; want %d", code, present, err, c.want)
			}
			if code == packet.Accepted {
				client.ping()
			} else {
				client.closed()
			}
		})
	}
}

func TestOtherProtocolLevelsAreToldSo(t *testing.T) {
	client := dial(t, listen(t, newServer(t, newFakeHub(t), nil)))
	client.send([]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 0}) // MQTT 5 has properties here
	if _, code, err := packet.ParseConnack(client.next(packet.CONNACK)); err != nil || code != packet.RefusedProtocol {
		t.Errorf("got %d, %v", code, err)
	}
	client.closed()
}

func TestWhatIsNotAConnectIsClosedWithoutAnAnswer(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"another packet": publish(events, 1, ""),
		"HTTP":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"TLS":            {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"a huge CONNECT": {0x10, 0x80, 0x80, 0x08},
		"broken CONNECT": {0x10, 2, 0, 9},
	} {
		t.Run(name, func(t *testing.T) {
			client := dial(t, listen(t, newServer(t, newFakeHub(t), nil)))
			client.send(bytes)
			client.closed()
		})
	}
}
