package arm

import (
	"fmt"
	"time"

	"tandem"
	"tandem/operation"
)

// How often a hub may be moved by hand (specs/wire-facts.md §14).
const (
	maxMovesADay = 2 // away from home, and as many back
	betweenMoves = time.Hour
)

// byOperator is what operation.Operation.Requested says of moves that people asked for; only these count.
const byOperator = "operator"

// checkMoves returns errLimits when a move to region to would be one too many. Home is where the hub was created: away
// from it is a failover, to it a failback. Days are UTC, and the hour runs from the end of the last move.
func checkMoves(now time.Time, home, to tandem.RegionName, history []operation.Operation) error {
	name, again := "failover", 0
	if to == home {
		name = "failback"
	}
	var last time.Time
	for _, o := range history {
		if o.Status != operation.Succeeded || o.Requested != byOperator {
			continue
		}
		if o.Ended.After(last) {
			last = o.Ended
		}
		if (o.To == home) == (to == home) && day(o.Ended) == day(now) {
			again++
		}
	}
	switch left := betweenMoves - now.Sub(last); {
	case !last.IsZero() && left > 0:
		return fmt.Errorf("the hub was moved at %s; the next move may begin in %s: %w", last.UTC().Format(time.RFC3339),
			left.Round(time.Second), errLimits)
	case again >= maxMovesADay:
		return fmt.Errorf("a hub may have %d %ss a day; the next is possible after midnight UTC: %w", maxMovesADay, name, errLimits)
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
