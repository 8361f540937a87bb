//! What the branches sell.

use serde::Serialize;
use tower_mfa::ident::TenantId;

#[derive(Serialize)]
pub struct Branch {
    pub id: &'static str,
    pub name: &'static str,
    pub items: [Item; 6],
}

#[derive(Serialize)]
pub struct Item {
    pub id: &'static str,
    pub name: &'static str,
    note: &'static str,
    /// In cents.
    pub price: u64,
}

const fn item(id: &'static str, name: &'static str, note: &'static str, price: u64) -> Item {
    Item { id, name, note, price }
}

/// Each branch is a tenant.
pub static BRANCHES: [Branch; 2] = [
    Branch {
        id: "public",
        name: "Harbour Store",
        items: [
            item("lantern", "Brass lantern", "Burns eleven hours on one filling.", 6400),
            item("rope", "Mooring rope, 20 m", "Three strands, spliced by hand.", 3850),
            item("oilskin", "Oilskin coat", "Waxed cotton, keeps out anything.", 14900),
            item("mug", "Enamel mug", "Chips honestly, lasts for ever.", 1200),
            item("sardines", "Sardines, six tins", "In olive oil, last summer's catch.", 2150),
            item("chart", "Chart of the bay", "Depths in fathoms, rocks in red.", 2700),
        ],
    },
    Branch {
        id: "north",
        name: "North Branch",
        items: [
            item("hat", "Wool hat", "Knitted two streets away.", 3200),
            item("flask", "Steel flask", "Still warm at the end of the watch.", 4100),
            item("lantern", "Storm lantern", "For nights that start at three.", 7100),
            item("mug", "Enamel mug", "The same mug, further north.", 1250),
            item("rope", "Tow rope, 40 m", "Floats, and does not mind ice.", 5900),
            item("chart", "Chart of the sound", "With the winter ice edge.", 2900),
        ],
    },
];

pub fn find(branch: &TenantId, item: &str) -> Option<&'static Item> {
    let branch = BRANCHES.iter().find(|known| known.id == branch.as_str())?;
    branch.items.iter().find(|known| known.id == item)
}
