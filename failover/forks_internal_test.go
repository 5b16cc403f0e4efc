package failover

import (
	"slices"
	"testing"

	"tandem"
	"tandem/pairlog"
)

func branch(epoch tandem.Epoch, holder tandem.RegionName, forkEpoch tandem.Epoch, number uint64) pairlog.Branch {
	return pairlog.Branch{Epoch: epoch, Holder: holder, Fork: pairlog.Fork{Epoch: forkEpoch, Number: number}}
}

// East has claimed epoch 3 after epoch 1, and died before it opened. West takes the pen back with all that it wrote in
// epoch 2, of which east's claim says nothing.
func TestTakingAPenBackKeepsTheEpochsThatTheVoidClaimLeftOut(t *testing.T) {
	one, two := branch(1, "west", 0, 0), branch(2, "west", 1, 289)
	void := pairlog.Pen{Epoch: 3, Region: "east", Forced: true, Fork: pairlog.Fork{Epoch: 1, Number: 289},
		Forks: []pairlog.Branch{one, branch(3, "east", 1, 289)}}
	next := pairlog.Pen{Epoch: 4, Region: "west", Fork: pairlog.Fork{Epoch: 2, Number: 296}}
	want := []pairlog.Branch{one, two, branch(4, "west", 2, 296)}
	if got := nextForks(void, next, []pairlog.Branch{one, two}); !slices.Equal(got, want) {
		t.Errorf("the chain is %v, want %v", got, want)
	}
	next.Fork = pairlog.Fork{Epoch: 1, Number: 289} // as the pen tells, whatever else is here
	want = []pairlog.Branch{one, branch(4, "west", 1, 289)}
	if got := nextForks(void, next, []pairlog.Branch{one, two}); !slices.Equal(got, want) {
		t.Errorf("the chain is %v, want %v", got, want)
	}
}

func TestAHolderDoesNotGoOnFromLessThanItsPenDid(t *testing.T) {
	r := Return{Hub: "fab", Region: "west", Peer: "east", Home: "west", Incarnation: "two"}
	f := ReturnFacts{Directory: true, Leased: true, Compared: true, Replica: ReplicaFacts{Role: RoleFenced, Epoch: 2, End: pairlog.Fork{Epoch: 1, Number: 289}},
		Pen: pairlog.Pen{Epoch: 4, Region: "west", Incarnation: "one", State: pairlog.PenOpen, Fork: pairlog.Fork{Epoch: 2, Number: 296}}}
	if step, ok := r.Next(f).(Refuse); !ok {
		t.Errorf("it does %v", step)
	}
	f.Replica.End = f.Pen.Fork
	if step, ok := r.Next(f).(Reopen); !ok {
		t.Errorf("with all of its log it does %v", step)
	}
}
