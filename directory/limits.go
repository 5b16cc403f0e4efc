package directory

import (
	"errors"
	"fmt"
	"strings"

	"tandem"
)

// The limits of every Store.
const (
	// MaxTxnParts is the most conditions and changes a transaction has, together.
	MaxTxnParts = 128
	// MaxBytes is the most that keys and values of one transaction weigh together.
	MaxBytes = 1 << 20
	// MaxKey is the most bytes in a key.
	MaxKey = 1024
	// watchBuffer is how many events a reader of Watch may fall behind.
	watchBuffer = 4096
)

const (
	opRead   = "read the directory"
	opCommit = "commit to the directory"
)

func unavailable(op, on string, cause error) error {
	return &tandem.Error{Op: op, Kind: tandem.Unavailable, On: on, Err: cause}
}

func checkKey(op, key string) error {
	switch {
	case key == "" || key[0] == '/' || strings.IndexByte(key, 0) >= 0:
		return &tandem.Error{Op: op, Kind: tandem.Invalid, On: key, Err: errors.New("a key is neither empty nor begins with a slash")}
	case len(key) > MaxKey:
		return &tandem.Error{Op: op, Kind: tandem.TooLarge, On: key[:32] + "…", Err: fmt.Errorf("a key has at most %d bytes", MaxKey)}
	}
	return nil
}

// check refuses what no Store takes, so that all of them refuse the same.
func (t Txn) check() error {
	if n := len(t.If) + len(t.Then); n == 0 {
		return &tandem.Error{Op: opCommit, Kind: tandem.Invalid, Err: errors.New("an empty transaction")}
	} else if n > MaxTxnParts {
		return &tandem.Error{Op: opCommit, Kind: tandem.TooLarge, Err: fmt.Errorf("%d conditions and changes, limit %d", n, MaxTxnParts)}
	}
	size := 0
	for _, c := range t.If {
		if err := checkKey(opCommit, c.Key); err != nil {
			return err
		}
		size += len(c.Key)
	}
	changed := make(map[string]bool, len(t.Then))
	for _, c := range t.Then {
		if err := checkKey(opCommit, c.Key); err != nil {
			return err
		}
		if changed[c.Key] {
			return &tandem.Error{Op: opCommit, Kind: tandem.Invalid, On: c.Key, Err: errors.New("changed twice in one transaction")}
		}
		changed[c.Key] = true
		size += len(c.Key) + len(c.Value)
	}
	if size > MaxBytes {
		return &tandem.Error{Op: opCommit, Kind: tandem.TooLarge, Err: fmt.Errorf("%d bytes, limit %d", size, MaxBytes)}
	}
	return nil
}
