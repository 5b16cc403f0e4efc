package hub

import (
	"encoding/json"

	"tandem"
	"tandem/pairlog"
)

// LogOf and ViewOf let tests look at what a replica works on.
func LogOf(r *Replica) *pairlog.Log { return r.log }
func ViewOf(r *Replica) *View       { return r.view }

// Confirm asks a holder whether a change stands.
func Confirm(r *Replica, epoch tandem.Epoch, number uint64, ids ...tandem.DeviceID) (stands bool, err error) {
	data, err := json.Marshal(confirmRequest{epoch, number, ids})
	if err != nil {
		return false, err
	}
	answer, err := r.confirm(data)
	if err != nil {
		return false, err
	}
	return answer.(bool), nil
}
