"""What runs: long-lived tasks that meet in the catalog (what is so) and in the hub (what has just happened), never directly."""
