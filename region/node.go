package region

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"tandem"
	"tandem/directory"
)

// A life is this process's hold on its data directory, and the names of this life and the one before.
type life struct {
	lock        *os.File
	file        string
	incarnation tandem.Incarnation
	former      tandem.Incarnation // empty at the first start
}

// beginLife takes the data directory. Conflict when another process has it.
func beginLife(dir string) (*life, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &tandem.Error{Op: "open the data directory", On: dir, Err: err}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &tandem.Error{Op: "open the data directory", On: dir, Err: err}
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, &tandem.Error{Op: "open the data directory", Kind: tandem.Conflict, On: dir,
			Err: errors.New("another process has it"), Hint: "stop that process, or give this one another data directory"}
	}
	l := &life{lock: lock, file: filepath.Join(dir, "incarnation"), incarnation: newIncarnation()}
	former, err := os.ReadFile(l.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = lock.Close()
		return nil, &tandem.Error{Op: "read the former incarnation", On: dir, Err: err}
	}
	l.former = tandem.Incarnation(strings.TrimSpace(string(former)))
	return l, nil
}

// fenceFormer makes sure that nothing of the process's former life is believed any more, then writes this life down.
// The new name is on disk before it is used anywhere.
func (l *life) fenceFormer(ctx context.Context, store directory.Store) error {
	if l.former != "" {
		if err := directory.FenceFormer(ctx, store, l.former, l.incarnation); err != nil {
			return err
		}
	}
	return l.rename(l.incarnation)
}

// rename writes down under which name this process acts from now on; the name is on disk when it returns nil.
func (l *life) rename(incarnation tandem.Incarnation) error {
	l.incarnation = incarnation
	return writeFile(l.file, []byte(incarnation+"\n"))
}

func (l *life) end() { _ = l.lock.Close() }

func newIncarnation() tandem.Incarnation {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return tandem.Incarnation(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])))
}
