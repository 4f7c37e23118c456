"""Scripts for the tools that fedagg is measured against."""
