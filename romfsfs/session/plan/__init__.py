"""What a commit would write, and how that is shown: shadow tree, plan, status, diff."""
