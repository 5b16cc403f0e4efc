package tandem_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tandem"
)

func TestTurnIsOnesAtATimeAndTimePassesForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn tandem.Turn
		var group sync.WaitGroup
		began, inside, n := time.Now(), 0, 0
		for range 10 {
			group.Go(func() {
				turn.Lock()
				defer turn.Unlock()
				if inside++; inside != 1 {
					t.Error("two have the turn")
				}
				time.Sleep(time.Second) // would never end if waiting for a turn held time up
				inside--
				n++
			})
		}
		group.Wait()
		if n != 10 || time.Since(began) != 10*time.Second {
			t.Fatalf("%d turns took %v", n, time.Since(began))
		}
	})
}

func TestUnlockOfAFreeTurnPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	new(tandem.Turn).Unlock()
}
