package hub

import "tandem/pairlog"

// LogOf and ViewOf let tests look at what a replica works on.
func LogOf(r *Replica) *pairlog.Log { return r.log }
func ViewOf(r *Replica) *View       { return r.view }
