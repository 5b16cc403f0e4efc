package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"encoding/pem"

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
