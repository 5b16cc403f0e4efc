package natslog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/minio/highwayhash"
)

// The engine keeps a stream's configuration in meta.inf and its checksum in meta.sum. It replaces each file atomically,
// but one after the other: a process killed in between, when a segment is made or sealed, leaves a pair that does not
// match. The engine then starts without that stream, says so in a warning only, and what it holds is not to be seen.
const (
	metaFile = "meta.inf"
	sumFile  = "meta.sum"
)

// repairMeta gives streams whose configuration is whole the checksum that belongs to it. The engine must not be running.
func repairMeta(storeDir string, logger *slog.Logger) error {
	files, err := filepath.Glob(filepath.Join(storeDir, "jetstream", "*", "streams", "*", metaFile))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := repairSum(file, logger); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func repairSum(file string, logger *slog.Logger) error {
	dir := filepath.Dir(file)
	meta, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(meta, &config) != nil || config.Name != filepath.Base(dir) {
		logger.Error("the configuration of a segment is damaged: it is not to be read", "file", file)
		return nil // the log has a hole then, which bars this hub from leading here, and no other
	}
	key := sha256.Sum256([]byte(config.Name))
	hash, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return err
	}
	_, _ = hash.Write(meta) // never fails
	want := hex.EncodeToString(hash.Sum(nil))
	have, err := os.ReadFile(filepath.Join(dir, sumFile))
	if err == nil && string(have) == want {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	logger.Warn("a segment's change of configuration was cut off by a crash; made whole", "segment", config.Name)
	return replaceFile(filepath.Join(dir, sumFile), []byte(want))
}

// replaceFile puts data in place durably.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
