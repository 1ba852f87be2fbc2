package masque

const batches = true
