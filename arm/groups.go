package arm

import (
	"net/http"

	"tandem"
)

// subscription is the installation's one subscription as ARM shows it.
func (d *Door) subscription() map[string]any {
	id := d.options.Catalog.Subscription()
	return map[string]any{
		"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": d.options.Catalog.Tenant(),
		"displayName": "Tandem", "state": "Enabled",
	}
}

func (d *Door) listSubscriptions(q *request) error {
	return q.answer(http.StatusOK, listOf([]map[string]any{d.subscription()}))
}

func (d *Door) getSubscription(q *request) error { return q.answer(http.StatusOK, d.subscription()) }

// headGroup answers 204: a resource group is a name that hubs carry, so every one exists. az takes no other status.
func (d *Door) headGroup(q *request) error {
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// getGroup shows a resource group; making one is the same, as there is nothing to make.
func (d *Door) getGroup(q *request) error {
	in := struct{ Location string }{}
	if err := q.read(&in); err != nil {
		return err
	}
	region := tandem.ParseRegion(in.Location)
	if all := d.options.Catalog.Regions(); region == "" && len(all) > 0 {
		region = all[0]
	}
	return q.answer(http.StatusOK, map[string]any{
		"id":   "/subscriptions/" + d.options.Catalog.Subscription() + "/resourceGroups/" + q.names["group"],
		"name": q.names["group"], "type": "Microsoft.Resources/resourceGroups", "location": region,
		"properties": map[string]string{"provisioningState": "Succeeded"},
	})
}
