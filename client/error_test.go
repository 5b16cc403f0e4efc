package client_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"tandem"
	"tandem/client"
)

func TestARefusalIsSaidOnce(t *testing.T) {
	var message string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"error":{"code":"X","message":%q}}`, message)
	}))
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Target{URLs: []string{server.URL}, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ message, text, hint string }{
		{"fail over: hub hub-1: it is there already", "fail over: hub hub-1: it is there already", ""},
		{"hub nope: find the hub: not found", "fail over: hub nope: not found", ""},
		{"fail over: x: it is dark (look at (both) copies)", "fail over: x: it is dark (look at (both) copies)", "look at (both) copies"},
		{"it has f(x)", "fail over: it has f(x)", ""},
		{"", "fail over: the server answered 409 Conflict", ""},
	} {
		message = row.message
		_, _, err := c.Failover(t.Context(), "hub-1", client.Move{})
		if err == nil || err.Error() != row.text || tandem.HintOf(err) != row.hint {
			t.Errorf("%q: %v, hint %q", row.message, err, tandem.HintOf(err))
		}
	}
}

// TestARegionThatOnlyThinksIsLeft: one that is cut off takes a request and does not answer; the other region is asked, for
// a failover too, but a hub is not created twice.
func TestARegionThatOnlyThinksIsLeft(t *testing.T) {
	thinking := make(chan struct{})
	var asked atomic.Int32
	cut := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-thinking:
		case <-r.Context().Done():
		}
	}))
	healthy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":"op1","status":"running"}`)
	}))
	for _, server := range []*httptest.Server{cut, healthy} {
		server.StartTLS()
		t.Cleanup(server.Close)
	}
	t.Cleanup(func() { close(thinking) })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cut.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Target{URLs: []string{cut.URL, healthy.URL}, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := c.PutHub(ctx, "hub-1", client.HubSpec{}); err == nil || asked.Load() != 1 {
		t.Errorf("a hub was created by a region that was asked second: %v", err)
	}
	o, _, err := c.Failover(t.Context(), "hub-1", client.Move{Forced: true})
	if err != nil || o.ID != "op1" || asked.Load() != 2 {
		t.Errorf("failover: %+v, %v", o, err)
	}
}
