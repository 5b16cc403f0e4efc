package failover_test

import (
	"errors"

	"tandem"
)

func is(err error, want *tandem.Error) bool { return errors.Is(err, want) }
