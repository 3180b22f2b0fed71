"""What the studies on rendered patients (dr-screening, breast-cancer) share."""
