"""How the pages of the panel and of the admin write figures."""
