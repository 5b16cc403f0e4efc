package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// regions are dev's two, in the order of their addresses.
var regions = [2]string{"westus2", "westcentralus"}

func other(region string) string {
	if region == regions[0] {
		return regions[1]
	}
	return regions[0]
}

// deviceKey is every device's key here.
var deviceKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))

// A tandem is a `tandem dev` without relays, seen from outside.
type tandem struct {
	binary, data string
	offset       int
	cmd          *exec.Cmd
	ended        chan struct{}
	log          *os.File
	http         *http.Client
	trust        *x509.CertPool
	devices      int // imported, d0000000 and on
	importRates  []importRate
	replication  string // set last; empty: async
}

// An importRate is one import: from how many devices to how many, and devices a second.
type importRate struct {
	from, to int
	rate     float64
}

// start returns the running system, started if it is not.
func (b *bench) start(ctx context.Context) (*tandem, error) {
	if b.tandem == nil {
		t := &tandem{binary: b.binary, data: filepath.Join(b.data, "tandem")}
		for t.offset = 11000; !portsFree(t.offset); t.offset += 50 {
			if t.offset > 14000 {
				return nil, errors.New("no free ports were found")
			}
		}
		if err := os.MkdirAll(t.data, 0o700); err != nil {
			return nil, err
		}
		b.tandem = t
	}
	if b.tandem.cmd != nil {
		return b.tandem, nil
	}
	_, err := b.tandem.run(ctx)
	return b.tandem, err
}

func (b *bench) stopTandem() {
	if b.tandem != nil {
		_ = b.tandem.stop(syscall.SIGINT)
	}
}

func portsFree(offset int) bool {
	for _, address := range []string{"127.0.0.1", "127.0.1.1", "127.0.2.1"} {
		for _, port := range []int{443, 1883, 8883, 8443, 9090} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port+offset)))
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}

// run starts dev and returns how long it took until the environment file was there.
func (t *tandem) run(ctx context.Context) (time.Duration, error) {
	var err error
	if t.log, err = os.OpenFile(filepath.Join(filepath.Dir(t.data), "tandem.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return 0, err
	}
	_ = os.Remove(filepath.Join(t.data, "env")) // of one that was killed
	t.cmd = exec.Command(t.binary, "dev", "--no-relays", "--data", t.data, "--port-offset", strconv.Itoa(t.offset))
	t.cmd.Stdout, t.cmd.Stderr = t.log, t.log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	began := time.Now()
	if err := t.cmd.Start(); err != nil {
		t.cmd = nil
		return 0, err
	}
	ended := make(chan struct{})
	t.ended = ended
	cmd := t.cmd
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for t.env()["TANDEM_HUB_CONNECTION_STRING"] == "" {
		select {
		case <-ended:
			t.cmd = nil
			return 0, fmt.Errorf("tandem dev ended before it was ready:\n%s", t.lastLog())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(began) > 2*time.Minute {
			return 0, fmt.Errorf("tandem dev was not ready after 2 minutes:\n%s", t.lastLog())
		}
	}
	took := time.Since(began)
	text, err := os.ReadFile(t.env()["TANDEM_CA"])
	if err != nil {
		return took, err
	}
	t.trust = x509.NewCertPool()
	t.trust.AppendCertsFromPEM(text)
	t.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: t.trust},
		MaxIdleConnsPerHost: 16, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}
	return took, nil
}

func (t *tandem) lastLog() string {
	text, _ := os.ReadFile(t.log.Name())
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop ends dev; with SIGKILL its children die with it.
func (t *tandem) stop(sig syscall.Signal) error {
	if t.cmd == nil {
		return nil
	}
	_ = t.cmd.Process.Signal(sig)
	select {
	case <-t.ended:
	case <-time.After(20 * time.Second):
		_ = t.cmd.Process.Kill()
		<-t.ended
	}
	t.cmd = nil
	_ = t.log.Close()
	for began := time.Now(); !portsFree(t.offset); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			return errors.New("20 s after its end, ports of tandem dev are still taken")
		}
	}
	return nil
}

func (t *tandem) env() map[string]string {
	values := map[string]string{}
	file, err := os.Open(filepath.Join(t.data, "env"))
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

func (t *tandem) pid(site string) int {
	for pair := range strings.SplitSeq(t.env()["TANDEM_REGION_PIDS"], ",") {
		if name, number, _ := strings.Cut(pair, "="); name == site {
			pid, _ := strconv.Atoi(number)
			return pid
		}
	}
	return 0
}

func address(region string) string {
	if region == regions[0] {
		return "127.0.1.1"
	}
	return "127.0.2.1"
}

func (t *tandem) at(region string, port int) string {
	return net.JoinHostPort(address(region), strconv.Itoa(port+t.offset))
}

// arm calls management in whichever region answers.
func (t *tandem) arm(method, path string, in, out any) error {
	var last error
	for _, region := range regions {
		var body io.Reader
		if in != nil {
			text, err := json.Marshal(in)
			if err != nil {
				return err
			}
			body = bytes.NewReader(text)
		}
		request, err := http.NewRequest(method, "https://"+t.at(region, 8443)+path, body)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+t.env()["TANDEM_CLIENT_SECRET"])
		request.Header.Set("Content-Type", "application/json")
		response, err := t.http.Do(request)
		if err != nil {
			last = err
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode >= 300 {
			last = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
			if response.StatusCode == http.StatusServiceUnavailable {
				continue
			}
			return last
		}
		if out == nil || len(text) == 0 {
			return nil
		}
		return json.Unmarshal(text, out)
	}
	return last
}

func (t *tandem) hubPath() string {
	env := t.env()
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Devices/IotHubs/%s?api-version=2023-06-30",
		env["TANDEM_SUBSCRIPTION"], env["TANDEM_RESOURCE_GROUP"], env["TANDEM_HUB_NAME"])
}

func (t *tandem) holder() (string, error) {
	var hub struct {
		Properties struct{ Tandem struct{ Holder string } }
	}
	err := t.arm(http.MethodGet, t.hubPath(), nil, &hub)
	if err == nil && hub.Properties.Tandem.Holder == "" {
		err = errors.New("the hub has no holder")
	}
	return hub.Properties.Tandem.Holder, err
}

func (t *tandem) replicate(mode string) error {
	var hub map[string]any
	if err := t.arm(http.MethodGet, t.hubPath(), nil, &hub); err != nil {
		return err
	}
	properties, _ := hub["properties"].(map[string]any)
	if properties == nil {
		return errors.New("the hub has no properties")
	}
	properties["tandem"] = map[string]any{"replication": mode}
	if err := t.arm(http.MethodPut, t.hubPath(), hub, nil); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // until both regions have read it
	// A new epoch begins with the mode: there and back again, so that the holder stays the same.
	holder, err := t.holder()
	if err != nil {
		return err
	}
	for _, to := range []string{other(holder), holder} {
		if _, err := t.failover(to, false); err != nil {
			return err
		}
	}
	if mode == "async" {
		return nil
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if both, err := t.inSync(); both {
			return nil
		} else if time.Since(began) > 20*time.Second {
			return fmt.Errorf("the peer is not in sync 20 s after the mode was set (%w)", err)
		}
	}
}

// inSync reports whether both regions are in the hub's in-sync set.
func (t *tandem) inSync() (bool, error) {
	var hub struct {
		Properties struct{ Tandem struct{ InSync []string } }
	}
	err := t.arm(http.MethodGet, t.hubPath(), nil, &hub)
	return err == nil && len(hub.Properties.Tandem.InSync) == 2, err
}

// failover moves the hub and waits until the operation has ended well.
func (t *tandem) failover(to string, forced bool) (time.Duration, error) {
	began := time.Now()
	var o struct {
		ID, Status string
		Error      *struct{ Code, Message string }
	}
	for {
		err := t.arm(http.MethodPost, "/tandem/hubs/"+t.env()["TANDEM_HUB_NAME"]+"/failover", map[string]any{"to": to, "forced": forced}, &o)
		if err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			return 0, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	for time.Since(began) < time.Minute {
		if err := t.arm(http.MethodGet, "/tandem/operations/"+o.ID, nil, &o); err == nil {
			switch strings.ToLower(o.Status) {
			case "succeeded":
				return time.Since(began), nil
			case "failed", "canceled", "superseded":
				return 0, fmt.Errorf("failover to %s: %+v", to, o)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("failover %s has not ended", o.ID)
}

// register imports devices until there are n, with the command that people use.
func (t *tandem) register(ctx context.Context, n int) error {
	if t.devices >= n {
		return nil
	}
	file := filepath.Join(filepath.Dir(t.data), "devices.jsonl")
	var text bytes.Buffer
	for i := t.devices; i < n; i++ {
		fmt.Fprintf(&text, `{"id":%q,"status":"enabled","authentication":{"type":"sas","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}}}`+"\n",
			deviceID(i), deviceKey, deviceKey)
	}
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, t.binary, "device", "import", t.env()["TANDEM_HUB_NAME"], file, "--parallel", "16")
	cmd.Env = os.Environ()
	for key, value := range t.env() {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tandem device import: %w: %s", err, out[max(0, len(out)-500):])
	}
	took := time.Since(began)
	rate := float64(n-t.devices) / took.Seconds()
	t.importRates = append(t.importRates, importRate{t.devices, n, rate})
	progress("imported %d devices in %v: %.0f/s", n-t.devices, took.Round(time.Millisecond), rate)
	t.devices = n
	return nil
}

func deviceID(i int) string { return fmt.Sprintf("d%07d", i) }

// clients are n devices' connections to one region's door.
func (t *tandem) clients(region string, n int, secure bool) []client {
	host, _, _ := strings.Cut(strings.TrimPrefix(strings.Split(t.env()["TANDEM_HUB_CONNECTION_STRING"], ";")[0], "HostName="), ":")
	list := make([]client, n)
	for i := range list {
		id := deviceID(i)
		list[i] = client{address: t.at(region, 1883), id: id, username: host + "/" + id + "/?api-version=2021-04-12",
			password: token(host+"/devices/"+id, deviceKey), topic: "devices/" + id + "/messages/events/"}
		if secure {
			list[i].address = t.at(region, 8883)
			list[i].tls = &tls.Config{RootCAs: t.trust, ServerName: "localhost", MinVersion: tls.VersionTLS12}
		}
	}
	return list
}

func token(resource, key string) string {
	raw, _ := base64.StdEncoding.DecodeString(key)
	sr, se := url.QueryEscape(resource), strconv.FormatInt(time.Now().Add(24*time.Hour).Unix(), 10)
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se
}

// firstAck connects one device again and again until a message of it is acknowledged, and returns how long that took.
func (t *tandem) firstAck(ctx context.Context, region string, limit time.Duration) (time.Duration, error) {
	began := time.Now()
	var last error
	for time.Since(began) < limit {
		c := t.clients(region, 1, false)[0]
		conn, in, err := c.connect(ctx, 60)
		if err != nil {
			last = err
			time.Sleep(10 * time.Millisecond)
			continue
		}
		packet, at := publishPacket(c.topic, []byte("first"))
		packet[at+1] = 1
		_ = conn.SetDeadline(time.Now().Add(limit))
		_, err = conn.Write(packet)
		if err == nil {
			var answer [4]byte
			_, err = io.ReadFull(in, answer[:])
		}
		_ = conn.Close()
		if err == nil {
			return time.Since(began), nil
		}
		last = err
	}
	return 0, fmt.Errorf("nothing acknowledged in %s within %v: %w", region, limit, last)
}

// verb runs one of dev's fault verbs.
func (t *tandem) verb(ctx context.Context, verb, site string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, t.binary, "dev", verb, site, "--data", t.data).CombinedOutput(); err != nil {
		return fmt.Errorf("tandem dev %s %s: %w: %s", verb, site, err, out)
	}
	return nil
}
