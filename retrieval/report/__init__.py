"""Every picture the tool draws."""
