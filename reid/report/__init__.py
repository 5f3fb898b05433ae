"""Pages, figures and tables made from the files that other packages write. No metric is computed here."""
