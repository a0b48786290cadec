"""The panel's base views, and the pages about an organisation, its people and its keys."""
