package sim_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"tandem/sim"
)

var (
	oneSeed = flag.Uint64("seed", 0, "run only this seed, and print what happens")
	seeds   = flag.Int("seeds", 0, "run so many seeds (default: as many as take a few seconds)")
	from    = flag.Uint64("from", 1, "the first of them")
	repeat  = flag.Int("repeat", 1, "run -seed so many times")
)

// long is how long a run takes that was not told how many seeds.
func long() time.Duration {
	if testing.Short() {
		return 5 * time.Second
	}
	return 12 * time.Second
}

func TestSeeds(t *testing.T) {
	if *oneSeed != 0 {
		for range *repeat {
			if !run(t, *oneSeed, true) {
				return
			}
		}
		return
	}
	most := *seeds
	if n, err := strconv.Atoi(os.Getenv("TANDEM_SIM_SEEDS")); err == nil && most == 0 {
		most = n
	}
	began, n, failed := time.Now(), 0, 0
	for ; most == 0 && time.Since(began) < long() || n < most; n++ {
		if !run(t, *from+uint64(n), false) {
			if failed++; failed == 20 {
				break
			}
		}
		if n%500 == 499 && testing.Verbose() {
			fmt.Fprintf(os.Stderr, "%d seeds, %d failed, %v\n", n+1, failed, time.Since(began).Round(time.Second))
		}
	}
	t.Logf("%d seeds from %d, %d failed, %v", n, *from, failed, time.Since(began).Round(time.Millisecond))
}

// stuck is how long one seed may take before its goroutines are printed.
const stuck = time.Minute

func run(t *testing.T, seed uint64, loud bool) bool {
	t.Helper()
	root := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		root = "/dev/shm"
	}
	dir, err := os.MkdirTemp(root, "tandem-sim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var text bytes.Buffer
	var out io.Writer = &text
	if loud {
		out = io.MultiWriter(&text, os.Stderr)
	}
	logger := slog.New(slog.NewTextHandler(out, nil))
	watch := time.AfterFunc(stuck, func() {
		fmt.Fprintf(os.Stderr, "seed %d is stuck\n%s\n", seed, text.String())
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(3)
	})
	defer watch.Stop()
	var broken error
	synctest.Test(t, func(t *testing.T) { broken = sim.Run(t.Context(), seed, dir, synctest.Wait, logger) })
	if broken == nil {
		return true
	}
	file := filepath.Join(os.TempDir(), fmt.Sprintf("tandem-sim-%d.log", seed))
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Log(err)
	}
	t.Fail()
	fmt.Fprintf(os.Stderr, "seed %d (go test ./sim -run TestSeeds -seed %d; what happened: %s):\n%v\n", seed, seed, file, broken)
	return false
}
