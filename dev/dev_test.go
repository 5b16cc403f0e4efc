package dev_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem"
	"tandem/dev"
	"tandem/region"
)

// TestMain makes this binary the program that dev starts: a site that answers as much as dev looks at.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve", "witness":
			os.Exit(pretend(os.Args[3]))
		case "parent":
			os.Exit(parent(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

// pretend is a site: readiness, a hub that is held by the first region, its keys, one device, and MQTT that says the
// region's name.
func pretend(file string) int {
	c, err := region.Load(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := region.EndWithParent(context.Background())
	if c.Region == region.Witness {
		<-ctx.Done()
		return 0
	}
	fmt.Fprintln(os.Stderr, "level=INFO msg=started")
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/listkeys"):
			fmt.Fprint(w, `{"value":[{"keyName":"iothubowner","primaryKey":"AAAA"}]}`)
		case strings.HasPrefix(r.URL.Path, "/devices/"):
			fmt.Fprint(w, `{"deviceId":"device-1","authentication":{"symmetricKey":{"primaryKey":"S0VZ"}}}`)
		default:
			fmt.Fprintf(w, `{"name":"hub-1","location":%q,"properties":{"hostName":"hub-1.tandem.localhost"}}`, holder(c))
		}
	})
	pair, err := tls.LoadX509KeyPair(c.DoorCert, c.DoorKey)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	at := func(port int) string { return net.JoinHostPort(c.Listen, strconv.Itoa(port)) }
	for _, port := range []int{c.Ports.ARM, c.Ports.HTTPS} {
		l, err := tls.Listen("tcp", at(port), &tls.Config{Certificates: []tls.Certificate{pair}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go func() { _ = http.Serve(l, mux) }()
	}
	for _, address := range []string{at(c.Ports.MQTT), c.Leaf.Listen} {
		if address == "" {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					fmt.Fprintln(conn, c.Region)
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
	}
	go func() { _ = http.ListenAndServe(at(c.Ports.Metrics), mux) }()
	<-ctx.Done()
	return 0
}

// holder is what the test wrote beside the sites' data.
func holder(c region.Config) string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(c.DataDir)), "holder"))
	if err != nil {
		return "westus2"
	}
	return string(text)
}

// options are of an installation whose ports no other test uses.
func options(t *testing.T, data string, offset int) dev.Options {
	t.Helper()
	o := dev.Default()
	o.Program, o.Data, o.PortOffset = os.Args[0], data, offset
	o.Addresses = []string{"127.0.71.1", "127.0.72.1", "127.0.73.1"}
	return o
}

// running starts a dev and returns it once it is ready; stop ends it and reports how.
func running(t *testing.T, o dev.Options) (d *dev.Dev, r dev.Ready, stop func()) {
	t.Helper()
	ready := make(chan dev.Ready, 1)
	o.Ready = func(r dev.Ready) { ready <- r }
	d, err := dev.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("does not end")
		}
	}
	t.Cleanup(stop)
	select {
	case r = <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("never ready")
	}
	return d, r, stop
}

func TestDev(t *testing.T) {
	data := t.TempDir()
	o := options(t, data, freeOffset(t))
	d, r, stop := running(t, o)
	if len(r.Sites) != 3 || r.Hub != "hub-1" || !strings.HasPrefix(r.DeviceString, "HostName=localhost:"+strconv.Itoa(8883+o.PortOffset)+";DeviceId=device-1;SharedAccessKey=S0VZ") {
		t.Errorf("ready: %+v", r)
	}
	t.Run("environment", func(t *testing.T) { checkEnvironment(t, data, o.PortOffset) })
	t.Run("second", func(t *testing.T) { checkSecond(t, o) })
	t.Run("front door", func(t *testing.T) { checkFrontDoor(t, data, front(o, 8883)) })
	t.Run("kill and start", func(t *testing.T) { checkKill(t, d, data, front(o, 8883)) })
	t.Run("cut and join", func(t *testing.T) { checkCut(t, d, net.JoinHostPort("127.0.71.1", strconv.Itoa(7422+o.PortOffset))) })
	t.Run("wrong commands", func(t *testing.T) { checkCommands(t, data) })
	env, _ := dev.ReadEnvironment(filepath.Join(data, "env"))
	stop()
	if _, err := os.Stat(filepath.Join(data, "env")); err == nil {
		t.Error("the environment file stays")
	}
	for name, pid := range pids(env) {
		if alive(pid) {
			t.Errorf("%s still runs", name)
		}
	}
	o.PortOffset++
	if again, err := dev.New(o); err != nil || tandem.KindOf(again.Run(t.Context())) != tandem.Precondition {
		t.Error("other ports on old data are not refused")
	}
}

func checkEnvironment(t *testing.T, data string, offset int) {
	file := filepath.Join(data, "env")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	out, err := exec.Command("sh", "-c", `set -a; . "$0"; set +a; echo "$TANDEM_HUB_NAME $TANDEM_ARM_URL"; env | grep -c -e ^TANDEM_ -e _ENDPOINT= -e ^MSI_SECRET= -e ^IDENTITY_HEADER= -e ^APPSETTING`, file).Output()
	if err != nil || string(out) != "hub-1 https://localhost:"+strconv.Itoa(8443+offset)+"\n30\n" {
		t.Errorf("read by a shell: %q, %v", out, err)
	}
	env, err := dev.ReadEnvironment(file)
	if err != nil || env["TANDEM_HUB_CONNECTION_STRING"] != "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=AAAA" {
		t.Errorf("%v, %v", env, err)
	}
	if len(pids(env)) != 3 {
		t.Errorf("TANDEM_REGION_PIDS=%s", env["TANDEM_REGION_PIDS"])
	}
}

func checkSecond(t *testing.T, o dev.Options) {
	d, err := dev.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); tandem.KindOf(err) != tandem.Conflict || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("on the same data: %v", err)
	}
	o.Data = t.TempDir()
	if d, err = dev.New(o); err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); tandem.KindOf(err) != tandem.Conflict || !strings.Contains(err.Error(), "--port-offset "+strconv.Itoa(o.PortOffset+20000)) {
		t.Errorf("on the same ports: %v", err)
	}
}

// hello is the first line that a connection to address says.
func hello(address string) string {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	var name string
	_, _ = fmt.Fscanln(conn, &name)
	return name
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func checkFrontDoor(t *testing.T, data, mqtt string) {
	if got := hello(mqtt); got != "westus2" {
		t.Errorf("leads to %q", got)
	}
	for _, next := range []string{"westcentralus", "westus2"} {
		if err := os.WriteFile(filepath.Join(data, "holder"), []byte(next), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "new connections go to "+next, func() bool { return hello(mqtt) == next })
	}
}

func checkKill(t *testing.T, d *dev.Dev, data, mqtt string) {
	env := func() map[string]string {
		values, _ := dev.ReadEnvironment(filepath.Join(data, "env"))
		return values
	}
	old := pids(env())["westus2"]
	do := func(verb string) {
		t.Helper()
		if err := dev.Send(t.Context(), data, dev.Command{Verb: verb, Site: "West US 2"}); err != nil {
			t.Fatal(err)
		}
	}
	do("stop")
	do("cont")
	do("kill")
	if alive(old) {
		t.Error("it lives")
	}
	eventually(t, "the environment file knows", func() bool { return pids(env())["westus2"] == 0 })
	eventually(t, "the front door leads to the other region", func() bool { return hello(mqtt) == "westcentralus" })
	if err := d.Do(dev.Command{Verb: "kill", Site: "westus2"}); tandem.KindOf(err) != tandem.Precondition {
		t.Errorf("killed twice: %v", err)
	}
	do("start")
	eventually(t, "it runs again", func() bool { pid := pids(env())["westus2"]; return pid != 0 && pid != old })
	if err := d.Do(dev.Command{Verb: "start", Site: "westus2"}); tandem.KindOf(err) != tandem.Conflict {
		t.Errorf("started twice: %v", err)
	}
	eventually(t, "it answers again", func() bool { return hello(mqtt) == "westus2" })
}

func checkCut(t *testing.T, d *dev.Dev, link string) {
	do := func(verb, site string) {
		t.Helper()
		if err := d.Do(dev.Command{Verb: verb, Site: site}); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("tcp", link) // the link, through its relay
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func(wait time.Duration) string {
		_ = conn.SetDeadline(time.Now().Add(wait))
		buffer := make([]byte, 64)
		n, _ := conn.Read(buffer)
		return string(buffer[:n])
	}
	if got := echo(5 * time.Second); got != "westus2\n" {
		t.Fatalf("%q", got)
	}
	do("cut", "westus2")
	fmt.Fprint(conn, "held")
	if got := echo(200 * time.Millisecond); got != "" {
		t.Errorf("%q came through a link that is cut", got)
	}
	if got := hello(link); got != "" {
		t.Errorf("a new connection through the cut link says %q", got)
	}
	do("join", "westus2")
	if got := echo(5 * time.Second); got != "held" {
		t.Errorf("after join came %q", got)
	}
}

func checkCommands(t *testing.T, data string) {
	for _, c := range []dev.Command{{Verb: "kill", Site: "mars"}, {Verb: "kill", Site: "link"}, {Verb: "paint", Site: "westus2"}} {
		if err := dev.Send(t.Context(), data, c); tandem.KindOf(err) != tandem.Invalid || tandem.HintOf(err) == "" && c.Site != "link" {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// TestChildrenEndWithTheirParent kills dev itself, with no chance to clean up.
func TestChildrenEndWithTheirParent(t *testing.T) {
	data := t.TempDir()
	cmd := exec.Command(os.Args[0], "parent", data, strconv.Itoa(freeOffset(t)))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var env map[string]string
	eventually(t, "it is ready", func() bool {
		var err error
		env, err = dev.ReadEnvironment(filepath.Join(data, "env"))
		return err == nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if len(pids(env)) != 3 {
		t.Fatalf("%v", env["TANDEM_REGION_PIDS"])
	}
	for name, pid := range pids(env) {
		eventually(t, name+" ends", func() bool { return !alive(pid) })
	}
}

func parent(data, offset string) int {
	o := dev.Default()
	o.Program, o.Data = os.Args[0], data
	o.PortOffset, _ = strconv.Atoi(offset)
	o.Addresses = []string{"127.0.74.1", "127.0.75.1", "127.0.76.1"}
	d, err := dev.New(o)
	if err == nil {
		err = d.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestSiteThatCannotStartIsShown(t *testing.T) {
	o := options(t, t.TempDir(), freeOffset(t))
	o.Program = "/bin/false"
	d, err := dev.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); tandem.KindOf(err) != tandem.Unavailable || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%v", err)
	}
}

// TestConfigsAreValid reads what dev writes for its sites.
func TestConfigsAreValid(t *testing.T) {
	o := options(t, t.TempDir(), freeOffset(t))
	o.NoRelays = true
	_, _, stop := running(t, o)
	defer stop()
	for _, name := range []string{"westus2", "westcentralus", "witness"} {
		c, err := region.Load(filepath.Join(o.Data, name, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if name == "witness" {
			err = c.ValidateDirectory()
		} else {
			err = c.Validate()
		}
		if err != nil {
			t.Error(err)
		}
		if c.Directory.Initial[name] != c.Directory.PeerAdvertise || !strings.HasSuffix(c.Directory.PeerAdvertise, c.Directory.PeerListen) {
			text, _ := json.Marshal(c.Directory)
			t.Errorf("without relays: %s", text)
		}
	}
}

func pids(env map[string]string) map[string]int {
	list := map[string]int{}
	for part := range strings.SplitSeq(env["TANDEM_REGION_PIDS"], ",") {
		if name, pid, ok := strings.Cut(part, "="); ok {
			list[name], _ = strconv.Atoi(pid)
		}
	}
	return list
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	if err != nil {
		return !errors.Is(err, syscall.ESRCH)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // one that was killed and not yet waited for is gone too
	return err != nil || !strings.Contains(string(text), ") Z ")
}

// front is one of dev's doors on the front address.
func front(o dev.Options, port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+o.PortOffset))
}

// freeOffset picks a port offset at which dev's doors can be bound, below the kernel's ephemeral range.
func freeOffset(t *testing.T) int {
	t.Helper()
	for range 100 {
		if offset := 1000 + 50*rand.IntN(180); portsFree(offset) {
			return offset
		}
	}
	t.Fatal("no free ports were found")
	return 0
}

func portsFree(offset int) bool {
	for _, port := range []int{443, 1883, 8883, 8443, 9090} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+offset)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
