package compat

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// regions are the two that dev starts by default.
var regions = [2]string{"westus2", "westcentralus"}

func other(region string) string {
	if region == regions[0] {
		return regions[1]
	}
	return regions[0]
}

// A system is one `tandem dev` with its data in a temporary directory, on ports of its own.
type system struct {
	t      *testing.T
	binary string
	data   string
	offset int
	log    *lockedBuffer
	cmd    *exec.Cmd
	ended  chan struct{}
	http   *http.Client
	// answered is the index of the address that answered last.
	answered atomic.Int32
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startSystem starts dev and returns once its environment file is there. The test's end stops it and fails if it does
// not end within 10 s. Its log is shown when the test failed.
func startSystem(t *testing.T) *system {
	t.Helper()
	binary := os.Getenv("TANDEM_BINARY")
	if binary == "" {
		t.Skip("TANDEM_BINARY is not set: run this with `make clients` or `make compat`")
	}
	installClients(t)
	data, err := os.MkdirTemp("", "tandem-compat-")
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, binary: binary, data: data, offset: freeOffset(t), log: &lockedBuffer{}, ended: make(chan struct{})}
	s.cmd = exec.Command(binary, "dev", "--data", data, "--port-offset", strconv.Itoa(s.offset))
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = append(os.Environ(), "LANG=C.UTF-8")
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(s.stop)
	for s.env()["TANDEM_HUB_CONNECTION_STRING"] == "" {
		select {
		case <-s.ended:
			t.Fatal("tandem dev ended before it was ready")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(began) > 90*time.Second {
			t.Fatal("tandem dev was not ready after 90 s")
		}
	}
	t.Logf("tandem dev ready after %v", time.Since(began).Round(10*time.Millisecond))
	ca, err := os.ReadFile(s.env()["TANDEM_CA"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("TANDEM_CA holds no certificate")
	}
	s.http = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 4,
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		// A region that is stopped still accepts connections: the next address is tried soon.
		ResponseHeaderTimeout: 3 * time.Second,
	}}
	return s
}

func (s *system) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		s.t.Error("tandem dev did not end within 10 s of Ctrl-C")
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	if s.t.Failed() {
		s.t.Logf("data is kept in %s; the end of dev's log:\n%s", s.data, tail(s.log.String(), 60))
		return
	}
	_ = os.RemoveAll(s.data)
}

func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// env reads the environment file as it is now; empty while there is none.
func (s *system) env() map[string]string {
	values := map[string]string{}
	file, err := os.Open(filepath.Join(s.data, "env"))
	if err != nil {
		return values
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			values[key] = strings.Trim(value, "'")
		}
	}
	return values
}

func (s *system) hub() string { return s.env()["TANDEM_HUB_NAME"] }

// pid is the process of a region, as the environment file has it; 0 when it does not run.
func (s *system) pid(region string) int {
	for pair := range strings.SplitSeq(s.env()["TANDEM_REGION_PIDS"], ",") {
		if name, number, _ := strings.Cut(pair, "="); name == region {
			pid, _ := strconv.Atoi(number)
			return pid
		}
	}
	return 0
}

// signal sends a signal to a region's process, not to its children: kill -9, or a pause.
func (s *system) signal(region string, sig syscall.Signal) {
	s.t.Helper()
	pid := s.pid(region)
	if pid == 0 {
		s.t.Errorf("TANDEM_REGION_PIDS does not name %s: %q", region, s.env()["TANDEM_REGION_PIDS"])
		return
	}
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Errorf("signal %v to %s (%d): %v", sig, region, pid, err)
	}
}

// start runs `tandem dev start REGION`, again while dev has not yet noticed that the region is dead.
func (s *system) start(region string) {
	s.t.Helper()
	err := waitFor(context.Background(), 10*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, s.binary, "dev", "start", region, "--data", s.data).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tandem dev start %s: %w: %s", region, err, out)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// installClients makes compat/node_modules what package-lock.json says; scripts/needs does nothing when it is.
func installClients(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("../scripts/needs").CombinedOutput(); err != nil {
		t.Fatalf("scripts/needs: %v\n%s", err, out)
	}
}

// freeOffset picks a port offset at which dev's doors can be bound. All ports stay below the kernel's ephemeral range.
func freeOffset(t *testing.T) int {
	t.Helper()
	for range 100 {
		offset := 10500 + 10*rand.IntN(400)
		if portsFree(offset) {
			return offset
		}
	}
	t.Fatal("no free ports were found")
	return 0
}

func portsFree(offset int) bool {
	for _, address := range []string{"127.0.0.1", "127.0.1.1", "127.0.2.1"} {
		for _, port := range []int{443, 1883, 8883, 8443, 9090} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port+offset)))
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}
