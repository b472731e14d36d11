"""Options that change numerics to reduce traffic or waiting."""
