"""The other downstream task: benign or malignant, and BI-RADS categories."""
