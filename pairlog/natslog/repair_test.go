package natslog_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"tandem/pairlog"
	"tandem/pairlog/natslog"
)

// A kill between the engine's two writes of a segment's configuration must not hide the segment.
func TestSegmentSurvivesCutOffConfiguration(t *testing.T) {
	for name, harm := range map[string]func(sum string) error{
		"made":   os.Remove,
		"sealed": func(sum string) error { return os.WriteFile(sum, []byte("0123456789abcdef"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			r := &region{t: t, o: natslog.Options{Region: "a", StoreDir: dir}}
			r.start()
			id := pairlog.SegmentID{Hub: "h", Epoch: 1, Holder: "a"}
			if err := r.s.Store().Create(ctx, id); err != nil {
				t.Fatal(err)
			}
			if err := r.s.Store().Append(ctx, id, 0, []byte("kept")); err != nil {
				t.Fatal(err)
			}
			r.stop()
			sums, err := filepath.Glob(filepath.Join(dir, "jetstream", "STORE", "streams", "*", "meta.sum"))
			if err != nil || len(sums) != 1 {
				t.Fatalf("checksums of the engine: %v %v", sums, err)
			}
			if err := harm(sums[0]); err != nil {
				t.Fatal(err)
			}
			r.start()
			state, err := r.s.Store().State(ctx, id)
			if err != nil || state.Last != 1 {
				t.Fatalf("after the restart the segment is %+v (%v)", state, err)
			}
		})
	}
}
