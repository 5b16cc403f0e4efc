package tandem

// azureRegion is one row of Azure's published table of region pairs (articles/reliability/regions-paired.md, 2025-01).
// It changes over time: keep it as data.
type azureRegion struct {
	display string
	pair    RegionName // empty: no pair
}

var azureRegions = map[RegionName]azureRegion{
	"eastasia":           {"East Asia", "southeastasia"},
	"southeastasia":      {"Southeast Asia", "eastasia"},
	"australiaeast":      {"Australia East", "australiasoutheast"},
	"australiasoutheast": {"Australia Southeast", "australiaeast"},
	"australiacentral":   {"Australia Central", "australiacentral2"},
	"australiacentral2":  {"Australia Central 2", "australiacentral"},
	"brazilsouth":        {"Brazil South", "southcentralus"},
	"brazilsoutheast":    {"Brazil Southeast", "brazilsouth"},
	"canadacentral":      {"Canada Central", "canadaeast"},
	"canadaeast":         {"Canada East", "canadacentral"},
	"chinanorth":         {"China North", "chinaeast"},
	"chinaeast":          {"China East", "chinanorth"},
	"chinanorth2":        {"China North 2", "chinaeast2"},
	"chinaeast2":         {"China East 2", "chinanorth2"},
	"chinanorth3":        {"China North 3", "chinaeast3"},
	"chinaeast3":         {"China East 3", "chinanorth3"},
	"northeurope":        {"North Europe", "westeurope"},
	"westeurope":         {"West Europe", "northeurope"},
	"francecentral":      {"France Central", "francesouth"},
	"francesouth":        {"France South", "francecentral"},
	"germanywestcentral": {"Germany West Central", "germanynorth"},
	"germanynorth":       {"Germany North", "germanywestcentral"},
	"centralindia":       {"Central India", "southindia"},
	"southindia":         {"South India", "centralindia"},
	"westindia":          {"West India", "southindia"},
	"japaneast":          {"Japan East", "japanwest"},
	"japanwest":          {"Japan West", "japaneast"},
	"koreacentral":       {"Korea Central", "koreasouth"},
	"koreasouth":         {"Korea South", "koreacentral"},
	"norwayeast":         {"Norway East", "norwaywest"},
	"norwaywest":         {"Norway West", "norwayeast"},
	"southafricanorth":   {"South Africa North", "southafricawest"},
	"southafricawest":    {"South Africa West", "southafricanorth"},
	"swedencentral":      {"Sweden Central", "swedensouth"},
	"swedensouth":        {"Sweden South", "swedencentral"},
	"switzerlandnorth":   {"Switzerland North", "switzerlandwest"},
	"switzerlandwest":    {"Switzerland West", "switzerlandnorth"},
	"uksouth":            {"UK South", "ukwest"},
	"ukwest":             {"UK West", "uksouth"},
	"uaenorth":           {"UAE North", "uaecentral"},
	"uaecentral":         {"UAE Central", "uaenorth"},
	"eastus":             {"East US", "westus"},
	"westus":             {"West US", "eastus"},
	"eastus2":            {"East US 2", "centralus"},
	"centralus":          {"Central US", "eastus2"},
	"northcentralus":     {"North Central US", "southcentralus"},
	"southcentralus":     {"South Central US", "northcentralus"},
	"westus2":            {"West US 2", "westcentralus"},
	"westcentralus":      {"West Central US", "westus2"},
	"westus3":            {"West US 3", "eastus"},
	"usgovvirginia":      {"US Gov Virginia", "usgovtexas"},
	"usgovtexas":         {"US Gov Texas", "usgovvirginia"},
	"usgovarizona":       {"US Gov Arizona", "usgovtexas"},
	"usdodeast":          {"US DoD East", "usdodcentral"},
	"usdodcentral":       {"US DoD Central", "usdodeast"},
	"israelcentral":      {"Israel Central", ""},
	"italynorth":         {"Italy North", ""},
	"mexicocentral":      {"Mexico Central", ""},
	"newzealandnorth":    {"New Zealand North", ""},
	"polandcentral":      {"Poland Central", ""},
	"qatarcentral":       {"Qatar Central", ""},
	"spaincentral":       {"Spain Central", ""},
}

var displayNames = func() map[RegionName]string {
	names := make(map[RegionName]string, len(azureRegions))
	for name, region := range azureRegions {
		names[name] = region.display
	}
	return names
}()

// PublishedPair returns the region that Azure pairs with r, and false when r has none or is not an Azure region.
func PublishedPair(r RegionName) (RegionName, bool) {
	pair := azureRegions[r].pair
	return pair, pair != ""
}
